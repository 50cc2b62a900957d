"""What is held still comes back as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.objective import HessianOperator, LocalObjective, Objective, gradient


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


class Drifting(nn.Module):
    """A layer that keeps a running mean; where, decides whether it can be held still."""

    def __init__(self, registered):
        super().__init__()
        self.linear, self.passes = nn.Linear(2, 1), 0
        start = torch.zeros(())
        if registered:
            self.register_buffer("mean", start)
        else:
            self.mean = start

    def forward(self, x):
        self.passes += 1
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean()
        return self.linear(x - self.mean)


def drifting_point(registered):
    objective = Objective(Drifting(registered), lambda out, y: ((out - y) ** 2).mean(1))
    return LocalObjective(objective, None, [Batch(torch.ones(9, 2), torch.zeros(9, 1))])


@pytest.mark.parametrize(
    "look", [gradient, lambda point: HessianOperator(point).dense(), LocalObjective.value]
)
def test_a_statistic_that_nothing_holds_still_is_an_error(look):
    with pytest.raises(ConfigError, match="two forward passes"):
        look(drifting_point(registered=False))


def test_a_registered_statistic_is_held_still_and_asked_for_once():
    point = drifting_point(registered=True)
    model = point.objective.model
    gradient(point)
    assert model.passes == 3  # two to see that it is one function, one for the gradient
    point.move_to(point.w + 1).value()
    assert model.passes == 4
    assert not model.mean
