"""Every model, in both modes, against brute force in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from truerisk.objective import (
    GaussNewtonOperator,
    HessianOperator,
    gradient,
    per_sample_gradients,
    value_and_gradient,
)
from truerisk.objective import (
    jacobian as outputs_jacobian,
)

EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture
def at(case, model, mode):
    return case(model, mode)


def test_value_and_gradient(at, model, mode):
    point, w = at.point(), at.point().w.requires_grad_()
    j = at.objective_at(w)
    (expected,) = torch.autograd.grad(j, w)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(gradient(point), expected, **EXACT)
    value, slope = value_and_gradient(point)
    torch.testing.assert_close(slope, expected, **EXACT)
    for found in (value, point.value()):
        torch.testing.assert_close(found, j.detach(), **EXACT)


def test_hessian(at, model, mode):
    point = at.point()
    expected = hessian(at.objective_at, point.w)
    found = HessianOperator(point)
    torch.testing.assert_close(found.dense(), expected, **EXACT)
    v = torch.randn_like(point.w)
    torch.testing.assert_close(found @ v, expected @ v, **EXACT)
    step = 1e-5 * v / v.norm()
    difference = gradient(point.move_to(point.w + step)) - gradient(point.move_to(point.w - step))
    torch.testing.assert_close(difference / 2e-5 * v.norm(), found @ v, rtol=1e-6, atol=1e-7)


def test_gauss_newton_is_j_h_j(at, model, mode):
    point = at.point()
    J = jacobian(at.outputs, point.w)
    torch.testing.assert_close(outputs_jacobian(point), J, **EXACT)
    p = at.outputs(point.w).softmax(1)
    H = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("nkp,nkl,nlq->pq", J, H, J) / len(p)
    found = GaussNewtonOperator(point)
    torch.testing.assert_close(found.dense(), expected, **EXACT)
    v = torch.randn_like(point.w)
    torch.testing.assert_close(found @ v, expected @ v, **EXACT)


def test_per_sample_gradients_are_the_jacobian_of_the_losses(at, model, mode):
    point = at.point()
    expected = jacobian(at.losses, point.w)
    (found,) = per_sample_gradients(point)
    torch.testing.assert_close(found, expected, **EXACT)


def test_invariant_to_how_batches_are_cut(case, split, model):
    at = case(model, "eval")
    one, many = at.point(), at.point(split(at.batch, 4, 1, 2))
    torch.testing.assert_close(many.value(), one.value(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(many), gradient(one), rtol=1e-10, atol=1e-14)
    v = torch.randn(one.space.size, 2, dtype=torch.float64)
    for operator in (HessianOperator, GaussNewtonOperator):
        torch.testing.assert_close(operator(many) @ v, operator(one) @ v, rtol=1e-9, atol=1e-12)
    rows = torch.cat([*per_sample_gradients(many)])
    torch.testing.assert_close(rows, *per_sample_gradients(one), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(outputs_jacobian(many), outputs_jacobian(one))


def test_model_and_generator_are_left_as_they_were(at, model, mode):
    point = at.point()
    state, noise = copy.deepcopy(at.model.state_dict()), torch.get_rng_state()
    flags = [copy.copy(m.__dict__) for m in at.model.modules()]
    gradient(point), HessianOperator(point) @ point.w, GaussNewtonOperator(point) @ point.w
    list(per_sample_gradients(point))
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(t, state[name]) for name, t in at.model.state_dict().items())
    assert all(p.grad is None for p in at.model.parameters())
    for m, before in zip(at.model.modules(), flags, strict=True):
        assert {k: v for k, v in m.__dict__.items() if not k.startswith("_")} == {
            k: v for k, v in before.items() if not k.startswith("_")
        }


@pytest.mark.filterwarnings("error:There is a performance drop")
def test_single_precision_agrees_with_double(case, model):
    found, expected = (case(model, "train", dtype).point() for dtype in (torch.float, torch.double))
    v = torch.randn(expected.space.size, 2, dtype=torch.float64)
    assert gradient(found).dtype == torch.float32
    expected = expected.move_to(found.w.double())
    for f in (
        lambda p: gradient(p),
        lambda p: HessianOperator(p) @ v,
        lambda p: GaussNewtonOperator(p) @ v,
    ):
        exact = f(expected)
        assert (f(found) - exact).norm() < 2e-4 * exact.norm()
