"""What formats lose, against numbers that are known to be lost."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from truerisk.diagnostics import Numerics

HALF = functools.partial(torch.autocast, "cpu", torch.float16)


def net(scale=1.0):
    layers = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        for p in layers.parameters():
            p.fill_(scale)
    return layers


def test_lost_values_and_zeros(seen):
    least = 2.0**-24  # of fp16
    values = torch.tensor([0.0, 0.0, 0.4 * least, 0.6 * least, 1e-41, 1e-40, 1.0, -3.0])
    found = Numerics().look(seen(net(), torch.ones(1, 2), torch.zeros(1, 1), {"w": values}))
    assert found["zero"] == pytest.approx(2 / 8)
    assert found["lost/fp16"] == pytest.approx(3 / 6)
    assert found["lost/bf16"] == pytest.approx(1 / 6)
    assert found["gradient/largest"] == 3
    assert found["gradient/smallest"] == pytest.approx(1e-41, rel=0.01)


def test_the_largest_output_by_layer(seen):
    x = torch.tensor([[3.0, -5.0], [-4.0, -6.0]])
    found = Numerics().look(seen(net(), x, torch.zeros(2, 1), precision="32-true"))
    assert found["activation/0"] == 10 and found["activation/1"] == found["activation/2"] == 0
    assert found["activation_share"] == pytest.approx(10 / torch.finfo(torch.float32).max)
    assert not any(name.startswith("lost") or name == "loss_scale" for name in found)


@pytest.mark.parametrize(("scale", "lost"), [(1.0, 1.0), (2.0**12, 0.0)])
def test_a_loss_scale_saves_what_fp16_would_lose(seen, scale, lost):
    """∂/∂w of (w₂ relu(w₁x))² is of size 1e-8 here: below fp16's least number, until scaled."""
    x, y = torch.full((1, 2), 1e-4), torch.zeros(1, 1)
    scaler = SimpleNamespace(get_scale=lambda: scale)
    options = {"precision": "16-mixed", "context": HALF, "scaler": scaler}
    found = Numerics().look(seen(net(0.3), x, y, **options))
    assert found["lost/run"] == lost and found["loss_scale"] == scale
    assert found["activation_share"] == pytest.approx(found["activation/0"] / 65504)


def test_a_whole_run_in_bfloat16(run):
    short = ["data=iris", "trainer.max_epochs=1", "diagnostics=[numerics]"]
    history = run(*short, "trainer.precision=bf16-mixed").history
    names = set(history.name)
    assert {"numerics/lost/run", "numerics/lost/fp16", "numerics/activation/output"} <= names
