"""The rules by which layers are mapped over members give what each member's own layer gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from truerisk.engine.stacked.vmap.batching_rules import BatchingRules


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization_of_half_precision_activations(training):
    """As under mixed precision: the layer's own tensors stay in single precision."""
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(3).train(training)
    x = torch.randn(4, 8, 3, 5).to(torch.bfloat16)
    params = {"weight": torch.rand(4, 3), "bias": torch.rand(4, 3)}
    buffers = {"running_mean": torch.randn(4, 3), "running_var": torch.rand(4, 3) + 0.5}
    theirs = [{k: t[m].clone() for k, t in {**params, **buffers}.items()} for m in range(4)]
    with BatchingRules():
        found = torch.vmap(lambda state, x: functional_call(layer, state, x))(params | buffers, x)
    expected = torch.stack([functional_call(layer, own, x[m]) for m, own in enumerate(theirs)])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
    for name, tensor in buffers.items():
        torch.testing.assert_close(tensor, torch.stack([own[name] for own in theirs]))
