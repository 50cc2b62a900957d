"""What is held still comes back as it was."""

from __future__ import annotations

import torch

from truerisk.objective import HessianOperator, gradient


def test_a_compiled_forward_pass_is_left_aside(case):
    """It can be differentiated only once."""
    at = case("mlp-none")
    expected = HessianOperator(at.point()).dense()

    def compiled(*args):
        raise AssertionError("the compiled forward pass was called")

    at.model._compiled_call_impl = compiled
    torch.testing.assert_close(HessianOperator(at.point()).dense(), expected)
    assert gradient(at.point()).norm() > 0
    assert at.model._compiled_call_impl is compiled
