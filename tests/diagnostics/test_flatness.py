"""Sharpness measures, against closed forms and dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.diagnostics import Flatness
from truerisk.diagnostics.curvature import compare_outputs, rescale_layers
from truerisk.objective import HessianOperator, LocalObjective, Objective

LOOK = ["diagnostics=[flatness]", "trainer.max_epochs=1", "optimizer=gd", "optimizer.lr=1e-9"]


def test_on_a_bowl(on_function):
    """½Σλᵢwᵢ² at w: the box's best corner is (|wᵢ| + ε(|wᵢ| + 1))², whatever the signs."""
    bowl = ["model=quadratic_bowl", "model.spectrum=[1.0,4.0]", "model.start=[-2,1]"]
    first = on_function(*bowl, *LOOK, "diagnostics.flatness.epsilon=0.1").tables["flatness"].iloc[0]
    value = 0.5 * (4 + 4)
    corner = 0.5 * ((2 + 0.3) ** 2 + 4 * (1 + 0.2) ** 2)
    assert first["box"] == pytest.approx(100 * (corner - value) / (1 + value), rel=1e-9)
    g, h = torch.tensor([-2.0, 4.0]), torch.tensor([1.0, 4.0])
    rise = 0.05 * g.norm() + 0.5 * 0.05**2 * (h * g**2).sum() / g.square().sum()
    assert first["sam"] == pytest.approx(float(rise), rel=1e-6)
    assert first["trace"] == pytest.approx(5)


def test_at_the_last_weights(watched, hessian):
    last, point = watched.tables["flatness"].iloc[-1], watched.point
    (batch,) = point.batches

    def j(w):
        return point.objective(point.space.named(w), batch).objective

    w = point.w.clone().requires_grad_()
    (g,) = torch.autograd.grad(j(w), w)
    uphill = j(point.w + 0.05 * g / g.norm()) - j(point.w)
    assert last["sam"] == pytest.approx(float(uphill), rel=1e-9)
    corner = j(point.w + 1e-3 * (point.w.abs() + 1) * g.sign()) - j(point.w)
    assert last["box"] >= 0.99 * 100 * float(corner / (1 + j(point.w)))
    assert abs(last["trace"] - float(hessian.trace())) < 4 * last["trace/stderr"]


def test_the_same_function_with_other_layers():
    """f = w₂ relu(w₁ x): at (α w₁, w₂/α) the Hessian is D⁻¹HD⁻¹ with D = diag(α, 1/α)."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    weights = {"0.weight": torch.tensor([[2.0]]), "2.weight": torch.tensor([[3.0]])}
    objective = Objective(model, lambda out, y: ((out - y) ** 2).mean(1))
    point = LocalObjective(objective, weights, [Batch(torch.ones(4, 1), torch.full((4, 1), 6.0))])
    moved = rescale_layers(point, 5.0)
    assert moved.w.tolist() == pytest.approx([10.0, 0.6])
    assert compare_outputs(point, moved) < 1e-6
    # J = (w₁w₂ − 6)²: H = 2 (w₂, w₁)ᵀ(w₂, w₁)
    for at in (point, moved):
        trace = HessianOperator(at).dense().trace()
        assert float(trace) == pytest.approx(2 * float(at.w.square().sum()), rel=1e-5)
    # tanh is not homogeneous
    model[1] = nn.Tanh()
    assert compare_outputs(point, rescale_layers(point, 5.0)) > 0.01


def test_one_layer_is_not_rescaled():
    objective = Objective(nn.Linear(1, 1), lambda out, y: ((out - y) ** 2).mean(1))
    point = LocalObjective(objective, None, [Batch(torch.ones(1, 1), torch.ones(1, 1))])
    with pytest.raises(ConfigError, match="no two of them"):
        rescale_layers(point, 2.0)


def test_bad_numbers_are_refused():
    for options in ({"epsilon": 0}, {"rho": -1}, {"iterations": 0}, {"probes": 1}, {"rescale": 0}):
        with pytest.raises(ConfigError, match=r"diagnostics\.flatness\."):
            Flatness(**options)
