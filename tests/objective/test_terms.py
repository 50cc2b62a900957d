"""Every loss and every penalty, against brute force in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

from truerisk.core.batch import Batch
from truerisk.loss import Hinge, adapt_loss
from truerisk.model import MLP
from truerisk.objective import (
    GaussNewtonOperator,
    HessianOperator,
    LocalObjective,
    Objective,
    gradient,
)
from truerisk.regularizer import (
    L1,
    L2,
    ElasticNet,
    Entropy,
    GroupLasso,
    InputGradient,
    Orthogonality,
)

LOSSES = {
    "cross_entropy": (nn.CrossEntropyLoss(reduction="none"), "classification", 3),
    "smoothed": (nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1), "classification", 3),
    "bce": (nn.BCEWithLogitsLoss(reduction="none"), "classification", 3),
    "bce of two": (nn.BCEWithLogitsLoss(reduction="none"), "classification", 2),
    "hinge": (Hinge(), "classification", 3),
    "mse": (nn.MSELoss(reduction="none"), "regression", 2),
    "mae": (nn.L1Loss(reduction="none"), "regression", 2),
    "huber": (nn.HuberLoss(reduction="none"), "regression", 2),
}
PENALTIES = {
    "l1": L1(0.3),
    "l2": L2(0.3),
    "elastic_net": ElasticNet(0.3, 0.4),
    "group_lasso": GroupLasso(0.3),
    "orthogonality": Orthogonality(0.3),
    "entropy": Entropy(0.3),
    "input_gradient": InputGradient(0.3),
}
CONVEX = {"l1", "l2", "elastic_net", "group_lasso"}


def problem(loss="cross_entropy", penalty=None, norm="none"):
    torch.manual_seed(1)
    module, task, classes = LOSSES[loss]
    fitted = adapt_loss(module, task, classes)
    options = {"activation": "tanh", "normalization": norm}
    model = MLP((4,), fitted.output_size, width=3, **options).double().train(norm == "batch")
    with torch.no_grad():  # off the kinks: scales begin at one and shifts at zero
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x = torch.randn(6, 4, dtype=torch.float64)
    y = torch.randn(6, classes).double() if task == "regression" else torch.arange(6) % classes
    penalties = {} if penalty is None else {penalty: PENALTIES[penalty].penalty}
    objective = Objective(model, fitted, penalties)
    return LocalObjective(objective, None, [Batch(x, y)]), Batch(x, y)


class PlainNorm(nn.Module):
    """Batch norm by its formula: torch's own has wrong third derivatives."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x):
        variance, mean = torch.var_mean(x, 0, unbiased=False)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


def plain(point, batch):
    """J by ordinary autograd."""
    model = copy.deepcopy(point.objective.model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm1d):
            model.set_submodule(name, PlainNorm(module))
    j = Objective(model, point.objective.surrogate, point.objective.penalties)
    return lambda w: j(point.space.named(w), batch).objective


def check_hessian(point, batch):
    expected = hessian(plain(point, batch), point.w)
    found = HessianOperator(point)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-9, atol=1e-12)
    v = torch.randn_like(point.w)
    torch.testing.assert_close(found @ v, expected @ v, rtol=1e-9, atol=1e-11)
    step = 1e-5 * v
    slopes = [gradient(point.move_to(point.w + sign * step)) for sign in (1, -1)]
    torch.testing.assert_close((slopes[0] - slopes[1]) / 2e-5, found @ v, rtol=1e-5, atol=1e-6)
    return expected


@pytest.mark.parametrize("loss", LOSSES)
def test_hessian_of_every_loss(loss):
    expected = check_hessian(*problem(loss))
    assert expected.abs().max() > 1e-2


@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_of_every_loss(loss):
    point, batch = problem(loss)
    outputs = point.outputs(point.w, batch)
    J = jacobian(lambda w: point.outputs(w, batch), point.w)
    losses = point.objective.losses
    blocks = hessian(lambda o: losses(o, batch).mean(), outputs)
    expected = torch.einsum("nkp,nkml,mlq->pq", J, blocks, J)
    found = GaussNewtonOperator(point).dense()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (found.abs().max() == 0) == (loss in ("hinge", "mae"))
    assert torch.linalg.eigvalsh(found).min() > -1e-12


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_hessian_with_every_penalty(penalty, norm):
    check_hessian(*problem(penalty=penalty, norm=norm))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_gauss_newton_has_the_penalties_own_hessian(penalty):
    point, batch = problem(penalty=penalty)

    def alone(w):
        return point.objective(point.space.named(w), batch).penalties[penalty]

    found, bare = (
        GaussNewtonOperator(point).dense(),
        GaussNewtonOperator(point, penalties=False).dense(),
    )
    torch.testing.assert_close(found - bare, hessian(alone, point.w), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(bare, GaussNewtonOperator(problem()[0]).dense(), rtol=1e-12, atol=0)
    if penalty in CONVEX:
        assert torch.linalg.eigvalsh(found).min() > -1e-12


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_count_once_however_batches_are_cut(penalty, split):
    one, batch = problem(penalty=penalty)
    many = LocalObjective(one.objective, None, split(batch, 1, 3, 2))
    torch.testing.assert_close(many.value(), one.value(), rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient(many), gradient(one), rtol=1e-11, atol=1e-15)
    h, g = (f(many).dense() - f(one).dense() for f in (HessianOperator, GaussNewtonOperator))
    assert h.abs().max() < 1e-12 and g.abs().max() < 1e-12


def test_a_mixed_batch_mixes_its_curvature():
    point, batch = problem()
    share = torch.tensor(0.3, dtype=torch.float64)
    other = batch.y.flip(0)
    targets = [Batch(batch.x, y) for y in (batch.y, other)]
    mixed = LocalObjective(point.objective, None, [Batch(batch.x, batch.y, other, share)])
    for operator in (HessianOperator, GaussNewtonOperator):
        a, b = (operator(LocalObjective(point.objective, None, [t])).dense() for t in targets)
        torch.testing.assert_close(operator(mixed).dense(), share * a + (1 - share) * b)


def test_a_frozen_parameter_and_one_left_out_are_constants():
    point, batch = problem(penalty="l2")
    full = HessianOperator(point).dense()
    last = point.space.sizes[-1]
    name = list(point.space.shapes)[-1]
    own = {name: point.objective.own[name]}
    part = LocalObjective(point.objective, own, [batch])
    torch.testing.assert_close(HessianOperator(part).dense(), full[-last:, -last:])
    shifted = point.objective.own["hidden.0.linear.weight"]
    with torch.no_grad():
        shifted += 1
    assert (HessianOperator(part).dense() - full[-last:, -last:]).abs().max() > 1e-3
    point.objective.model.output.bias.requires_grad_(False)
    frozen = Objective(point.objective.model, point.objective.surrogate)
    assert name not in LocalObjective(frozen, None, [batch]).space.shapes


def test_buffers_given_are_used():
    point, batch = problem(norm="batch")
    model = point.objective.model.eval()
    state = dict(model.named_parameters()) | {n: b + 1 for n, b in model.named_buffers()}
    given = LocalObjective(point.objective, state, [batch])
    outputs = functional_call(model, state, (batch.x,))
    expected = nn.functional.cross_entropy(outputs, batch.y).detach()
    torch.testing.assert_close(given.value(), expected)
    torch.testing.assert_close(given.move_to(given.w).value(), expected)
    assert abs(float(LocalObjective(point.objective, None, [batch]).value() - expected)) > 1e-4


def test_group_lasso_has_no_curvature_where_a_row_is_zero():
    """Not the NaN of a norm's second derivative there."""
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]]))
    penalties = {"group_lasso": GroupLasso(0.3).penalty}
    objective = Objective(model, lambda outputs, y: 0 * outputs.sum(1), penalties)
    point = LocalObjective(objective, None, [Batch(torch.ones(1, 3).double(), torch.zeros(1))])
    row = model.weight[1].detach()
    size = 0.3 * 3**0.5
    assert gradient(point).tolist() == pytest.approx([0, 0, 0, *(size * row / 3).tolist()])
    found, curved = (
        HessianOperator(point).dense(),
        size * (torch.eye(3).to(row) / 3 - row.outer(row) / 27),
    )
    torch.testing.assert_close(found[3:, 3:], curved)
    assert not found[:3].any() and not found[:, :3].any()
