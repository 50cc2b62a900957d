"""J as a pure function: same value however it is asked for, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, vmap
from torch.nn.functional import cross_entropy

from truerisk.core.batch import Batch
from truerisk.objective import Objective, gradient_by_name

PENALTIES = [
    "regularizer=[l1,l2,elastic_net,group_lasso,orthogonality,entropy,input_gradient]",
    *(f"regularizer.{name}.coefficient=0.01" for name in ("l1", "l2", "elastic_net")),
]
RECIPE = ["data=wine", "model.width=6", "model.activation=tanh", "model.normalization=layer"]


@pytest.fixture
def recipe(assembled):
    return assembled(*RECIPE, *PENALTIES)


@pytest.fixture
def objective(recipe):
    return Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))


@pytest.fixture
def batch(recipe):
    return Batch(recipe.data.train.x[:100:5], recipe.data.train.y[:100:5])


def detached(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_j_is_empirical_risk_plus_penalties(recipe, objective, batch):
    value = objective(None, batch)
    outputs = recipe.model(batch.x)
    losses = cross_entropy(outputs, batch.y, reduction="none")
    torch.testing.assert_close(value.outputs, outputs, rtol=0, atol=0)
    torch.testing.assert_close(value.losses, losses, rtol=0, atol=1e-15)
    assert value.losses.shape == (20,)
    assert value.risk.item() == pytest.approx(losses.mean().item(), rel=1e-15)
    assert set(value.penalties) == set(recipe.regularizers) and len(value.penalties) == 7
    assert all(p.item() != 0 for p in value.penalties.values())
    total = losses.mean().item() + sum(p.item() for p in value.penalties.values())
    assert value.objective.item() == pytest.approx(total, rel=1e-14)
    weights = [p for p in recipe.model.parameters() if p.ndim > 1]
    l2 = 0.005 * sum(p.square().sum() for p in weights)
    assert value.penalties["l2"].item() == pytest.approx(l2.item(), rel=1e-14)


def test_own_parameters_and_given_ones_are_the_same_function(recipe, objective, batch):
    mine, given = objective(None, batch), objective(detached(recipe.model), batch)
    torch.testing.assert_close(mine.objective, given.objective, rtol=1e-15, atol=0)
    for name, penalty in mine.penalties.items():
        torch.testing.assert_close(penalty, given.penalties[name], rtol=1e-14, atol=0)


def test_other_parameters_are_those_of_a_model_that_has_them(recipe, objective, batch):
    other = {name: p + 0.1 * torch.randn_like(p) for name, p in detached(recipe.model).items()}
    value = objective(other, batch).objective
    before = objective(None, batch).objective.item()
    recipe.model.load_state_dict(other)
    assert objective(None, batch).objective.item() == pytest.approx(value.item(), rel=1e-14)
    assert value.item() != pytest.approx(before, rel=1e-3)


def test_nothing_is_left_behind(recipe, objective, batch):
    before = detached(recipe.model)
    params = {name: 2 * p for name, p in before.items()}
    gradient_by_name(objective, params, batch)
    objective(params, batch)
    for name, p in recipe.model.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None
        assert torch.equal(params[name], 2 * before[name])


def test_gradient_is_what_backward_gives(recipe, objective, batch):
    mine = gradient_by_name(objective, detached(recipe.model), batch)
    objective(None, batch).objective.backward()
    for name, p in recipe.model.named_parameters():
        torch.testing.assert_close(mine[name], p.grad, rtol=1e-12, atol=1e-15)


def test_mapped_over_stacked_parameters(recipe, objective, batch):
    members = [
        {name: p + 0.1 * torch.randn_like(p) for name, p in detached(recipe.model).items()}
        for _ in range(3)
    ]
    stacked = {name: torch.stack([m[name] for m in members]) for name in members[0]}
    together = vmap(lambda p: objective(p, batch).objective)(stacked)
    alone = torch.stack([objective(m, batch).objective for m in members])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)
    slopes = vmap(lambda p: gradient_by_name(objective, p, batch)["output.weight"])(stacked)
    each = torch.stack([gradient_by_name(objective, m, batch)["output.weight"] for m in members])
    torch.testing.assert_close(slopes, each, rtol=1e-11, atol=1e-14)


def test_hessian_of_ridge_is_the_closed_form(assembled):
    """∇²(1/n ‖y − Xw‖² + ½λ‖w‖²) = 2XᵀX/n + λI."""
    given = ["data=diabetes", "loss=mse", "model=linear", "model.bias=false"]
    recipe = assembled(*given, "regularizer=l2", "regularizer.l2.coefficient=0.3")
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    x, y = recipe.data.train.x, recipe.data.train.y
    w = {"output.weight": torch.randn(1, 10, dtype=torch.float64)}
    h = hessian(lambda p: objective(p, Batch(x, y)).objective)(w)["output.weight"]["output.weight"]
    expected = 2 * x.T @ x / len(x) + 0.3 * torch.eye(10)
    torch.testing.assert_close(h.view(10, 10), expected.double(), rtol=1e-7, atol=1e-9)


def test_mixed_batch_mixes_its_losses(recipe):
    objective = Objective(recipe.model, recipe.surrogate)
    x, y = recipe.data.train.x[:90:15], recipe.data.train.y[:90:15]
    other, share = y.flip(0), torch.linspace(0, 1, 6, dtype=torch.float64)
    a, b = (objective(None, Batch(x, t)).losses for t in (y, other))
    assert not torch.equal(y, other)
    for s in (share, torch.tensor(0.3)):
        mixed = objective(None, Batch(x, y, other, s))
        torch.testing.assert_close(mixed.losses, s * a + (1 - s) * b)
        assert mixed.objective.item() == pytest.approx((s * a + (1 - s) * b).mean().item())


def test_frozen_parameters_are_not_penalised(recipe, batch):
    recipe.model.output.weight.requires_grad_(False)
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    weights = [p for p in recipe.model.hidden.parameters() if p.ndim > 1]
    expected = 0.005 * sum(p.square().sum() for p in weights)
    for params in (None, detached(recipe.model)):
        l2 = objective(params, batch).penalties["l2"]
        assert l2.item() == pytest.approx(expected.item(), rel=1e-14)


def test_buffers_may_be_given_too():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double().eval()
    objective = Objective(model, lambda out, y: (out - y).square().mean(1))
    x, y = torch.randn(5, 2).double(), torch.randn(5, 3).double()
    state = {name: t.clone() for name, t in model.state_dict().items()}
    state["1.running_mean"] += 1.5
    expected = (functional_call(model, state, (x,)) - y).square().mean()
    value = objective(state, Batch(x, y))
    assert value.risk.item() == pytest.approx(expected.item())
    assert value.risk.item() != pytest.approx(objective(None, Batch(x, y)).risk.item())


def test_logged_objective_is_train_risk_plus_penalty(run, series):
    given = ["data=wine", "model.width=6", "regularizer=[l1,l2]", "trainer.precision=64-true"]
    result = run(*given, "regularizer.l2.coefficient=0.05", "trainer.max_epochs=4")
    total = series(result, "risk/train") + series(result, "penalty")
    each = series(result, "penalty/l1") + series(result, "penalty/l2")
    assert len(total) == 5
    assert list(series(result, "objective")) == pytest.approx(list(total), rel=1e-15)
    assert list(series(result, "penalty")) == pytest.approx(list(each), rel=1e-15)
    weights = [p for p in result.network.parameters() if p.ndim > 1]
    best = result.summary["risk/val"].epoch
    l2 = 0.025 * sum(p.square().sum().item() for p in weights)
    assert series(result, "penalty/l2")[best] == pytest.approx(l2, rel=1e-6)
