"""SAM: closed forms on quadratics, two evaluations a step, weights restored to the bit."""

from __future__ import annotations

import functools

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.optimizer import SAM, Muon

A = torch.diag(torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64))
W = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def quadratic(w, seen):
    """A closure for J = ½ wᵀ A w that notes where it was called."""

    def closure():
        seen.append(w.detach().clone())
        w.grad = None
        loss = 0.5 * w @ A @ w
        loss.backward()
        return loss

    return closure


def sgd(lr, **numbers):
    return functools.partial(torch.optim.SGD, lr=lr, **numbers)


def test_closed_form():
    w, seen = W.clone().requires_grad_(), []
    loss = SAM([w], sgd(0.05), rho=0.3).step(quadratic(w, seen))
    g = A @ W
    neighbour = W + 0.3 * g / g.norm()
    assert loss.item() == pytest.approx((0.5 * W @ A @ W).item())
    assert len(seen) == 2 and torch.equal(seen[0], W)
    torch.testing.assert_close(seen[1], neighbour, rtol=0, atol=1e-15)
    torch.testing.assert_close(w.detach(), W - 0.05 * A @ neighbour, rtol=0, atol=1e-15)


def test_norm_is_over_all_parameters():
    parts = [W[:1].clone().requires_grad_(), W[1:].clone().requires_grad_()]

    def closure():
        for p in parts:
            p.grad = None
        w = torch.cat(parts)
        loss = 0.5 * w @ A @ w
        loss.backward()
        return loss

    SAM(parts, sgd(0.05), rho=0.3).step(closure)
    g = A @ W
    expected = W - 0.05 * A @ (W + 0.3 * g / g.norm())
    torch.testing.assert_close(torch.cat(parts).detach(), expected, rtol=0, atol=1e-15)


def test_adaptive_closed_form():
    w, seen = W.clone().requires_grad_(), []
    SAM([w], sgd(0.05), rho=0.3, adaptive=True, eta=0.01).step(quadratic(w, seen))
    g, t = A @ W, W.abs() + 0.01
    torch.testing.assert_close(seen[1], W + 0.3 * t**2 * g / (t * g).norm(), rtol=0, atol=1e-15)


def test_adaptive_ignores_rescaling():
    """Radius and weights in other units give the same neighbour in those units (η = 0)."""
    scale = torch.tensor([3.0, 0.2, 7.0], dtype=torch.float64)
    neighbours = []
    for unit in (torch.ones_like(scale), scale):
        w = (W / unit).requires_grad_()
        seen: list[torch.Tensor] = []

        def closure(w=w, unit=unit, seen=seen):
            seen.append(w.detach() * unit)
            w.grad = None
            loss = 0.5 * (w * unit) @ A @ (w * unit)
            loss.backward()
            return loss

        SAM([w], sgd(0.05), rho=0.3, adaptive=True, eta=0.0).step(closure)
        neighbours.append(seen[1])
    torch.testing.assert_close(*neighbours, rtol=0, atol=1e-14)


def test_weights_come_back_to_the_bit():
    torch.manual_seed(0)
    w = torch.randn(1000).requires_grad_()
    before = w.detach().clone()

    def closure():
        w.grad = None
        loss = (w**4).sum()
        loss.backward()
        return loss

    SAM([w], sgd(0.0), rho=0.7).step(closure)
    assert torch.equal(w.detach(), before)


def test_weights_come_back_when_the_second_evaluation_fails():
    w, seen = W.clone().requires_grad_(), []
    good = quadratic(w, seen)

    def closure():
        if seen:
            raise ArithmeticError
        return good()

    with pytest.raises(ArithmeticError):
        SAM([w], sgd(0.1), rho=0.3).step(closure)
    assert torch.equal(w.detach(), W)


def test_at_a_stationary_point_nothing_moves():
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    SAM([w], sgd(0.1), rho=0.3).step(quadratic(w, []))
    assert torch.equal(w.detach(), torch.zeros(3, dtype=torch.float64))


def test_zero_radius_is_the_base_optimizer():
    w, v = W.clone().requires_grad_(), W.clone().requires_grad_()
    mine, base = SAM([w], sgd(0.05, momentum=0.9), rho=0.0), sgd(0.05, momentum=0.9)([v])
    for _ in range(10):
        mine.step(quadratic(w, []))
        base.step(quadratic(v, []))
    assert torch.equal(w, v)


@pytest.mark.parametrize(
    "base", [sgd(0.01, momentum=0.9), functools.partial(torch.optim.Adam, lr=0.1)]
)
def test_state_round_trip(base, tmp_path):
    w = W.clone().requires_grad_()
    optimizer = SAM([w], base, rho=0.1)
    for _ in range(3):
        optimizer.step(quadratic(w, []))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    v = w.detach().clone().requires_grad_()
    resumed = SAM([v], base, rho=0.1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.param_groups is resumed.base.param_groups and resumed.state is resumed.base.state
    for _ in range(3):
        optimizer.step(quadratic(w, []))
        resumed.step(quadratic(v, []))
    assert torch.equal(w, v)


def test_groups_are_the_base_optimizers():
    w = torch.zeros(2, 2, requires_grad=True)
    b = torch.zeros(2, requires_grad=True)
    optimizer = SAM([w, b], functools.partial(Muon, lr=0.02))
    optimizer.param_groups[0]["lr"] = 0.5
    assert optimizer.base.parts[0].param_groups[0]["lr"] == 0.5


def test_negative_radius_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.rho"):
        SAM([torch.zeros(1)], sgd(0.1), rho=-0.1)
