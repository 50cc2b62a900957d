"""Truncated Newton: the path of conjugate gradients, its region, and negative curvature."""

from __future__ import annotations

import math

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.optimizer import NewtonCG
from truerisk.optimizer.conjugate_gradient import minimize_by_cg, truncated_path

FUNCTION = ["data=none", "optimizer=newton_cg", "regularizer=[]"]


def symmetric(spectrum):
    torch.manual_seed(0)
    values = torch.tensor(spectrum, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))
    return q @ torch.diag(values) @ q.T


def model(A, g, p):
    return (g @ p + 0.5 * p @ A @ p).item()


A = symmetric([9.0, 4.0, 2.0, 1.0, 0.5])
G = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)


def test_the_path_ends_at_the_solution():
    path = truncated_path(lambda v: A @ v, G, 0.0, 5)
    trial = path.leave_ball(math.inf)
    torch.testing.assert_close(trial.step, -torch.linalg.solve(A, G), rtol=1e-10, atol=0)
    assert trial.predicted == pytest.approx(model(A, G, trial.step), rel=1e-12)
    assert not (trial.on_edge or path.negative)


@pytest.mark.parametrize("spectrum", [[9, 4, 2, 1, 0.5], [9, 4, -2, 1, 0.5], [9, 4, 0, 1, -0.5]])
@pytest.mark.parametrize("radius", [0.05, 0.4, 1.1])
def test_the_path_leaves_a_ball_lower_than_steepest_descent(spectrum, radius):
    """And a smaller radius is served by the same path."""
    A = symmetric([float(v) for v in spectrum])
    whole = truncated_path(lambda v: A @ v, G, 0.0, 5)
    for path in (whole, truncated_path(lambda v: A @ v, G, 0.0, 5, radius)):
        trial = path.leave_ball(radius)
        assert trial.on_edge and trial.step.norm().item() == pytest.approx(radius)
        assert trial.predicted == pytest.approx(model(A, G, trial.step), rel=1e-10)
        length = min((G @ G / (G @ A @ G).clamp_min(1e-9)).item(), radius / G.norm().item())
        assert trial.predicted <= model(A, G, -length * G) + 1e-12


def test_truncation_keeps_to_positive_curvature():
    bowl = symmetric([3.0, 1.0, -1.0])
    g = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    path = truncated_path(lambda v: bowl @ v, g, 0.0, 3)
    assert path.negative and len(path.legs) > 1
    assert torch.equal(path.end_before_negative(), path.legs[-1].start)
    first = truncated_path(lambda v: -v, g, 0.0, 3)
    assert first.negative and torch.equal(first.end_before_negative(), -g)


def test_it_stops_at_the_tolerance():
    """Residual at most min(½, √‖g‖)·‖g‖: the forcing sequence of superlinear convergence."""
    tolerance = 0.3 * G.norm().item()
    path = truncated_path(lambda v: A @ v, G, tolerance, 5)
    end = path.leave_ball(math.inf).step
    before = path.legs[-1].start
    assert (G + A @ end).norm() <= tolerance < (G + A @ before).norm()


def test_minimize_solves_with_a_start():
    start = torch.ones(5, dtype=torch.float64)
    *_, end = minimize_by_cg(lambda v: A @ v, G, start, 50, progress=0.0)
    torch.testing.assert_close(end, -torch.linalg.solve(A, G), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("method", "steps"), [("trust_region", 45), ("line_search", 80)])
def test_rosenbrock(run, method, steps):
    given = [*FUNCTION, "model=rosenbrock", f"optimizer.method={method}"]
    result = run(*given, f"trainer.max_epochs={steps}", "risk.every=1000")
    assert result.summary["distance"].value < 1e-12


def bumpy(w):
    return torch.log1p(50 * (w[0] - 1) ** 2) + (w[1] - w[0] ** 2) ** 2 + 0.1 * w[1] ** 4


def test_steps_keep_to_the_region(function_problem):
    """No step is longer than Δ, none goes up, and Δ follows ρ (Nocedal & Wright, algorithm 4.1)."""
    w, problem = function_problem(bumpy, [-3.0, 2.0])
    optimizer, seen = NewtonCG([w], radius=0.5, max_radius=2.0), set()
    for _ in range(40):
        now, before, radius = problem(), w.detach().clone(), optimizer.group["radius"]
        g, hessian = now.gradient().clone(), now.hessian()
        optimizer.step(now)
        p, after = w.detach() - before, optimizer.group["radius"]
        size = p.norm().item()
        assert size <= radius * (1 + 1e-12) and after <= 2.0
        if optimizer.group["step_length"] and g.norm() > 1e-6:
            rho = (now.value(before + p) - now.value()) / model(hessian, g, p)
            assert rho > 1e-4
            seen.add("grew" if after > radius else "shrank" if after < radius else "stayed")
            if after > radius:
                assert rho > 0.75 and size == pytest.approx(radius)
                assert after == pytest.approx(min(2 * radius, 2.0))
            elif rho < 0.25:
                assert after == pytest.approx(size / 4)
    assert seen == {"grew", "shrank", "stayed"}
    assert g.norm() < 1e-8


@pytest.mark.parametrize("method", ["trust_region", "line_search"])
def test_negative_curvature_is_a_way_down(function_problem, method):
    """x² − y² from beside the saddle: to the region's edge, or along −∇J."""
    w, problem = function_problem(lambda w: w[0] ** 2 - w[1] ** 2 + w[1] ** 4 / 4, [1.0, 1e-3])
    optimizer = NewtonCG([w], method=method)
    for _ in range(30):
        optimizer.step(problem())
    end = torch.tensor([0.0, math.sqrt(2)], dtype=torch.float64)
    torch.testing.assert_close(w.detach(), end, rtol=0, atol=1e-7)


def test_a_stationary_point_is_left_alone(function_problem):
    w, problem = function_problem(lambda w: w[0] ** 2 - w[1] ** 2, [0.0, 0.0])
    optimizer = NewtonCG([w])
    optimizer.step(problem())
    assert optimizer.group["step_length"] == 0 and not w.any()


def test_what_is_not_finite_is_too_far(function_problem):
    w, problem = function_problem(lambda w: (torch.log(w) ** 2).sum(), [4.0, 0.05])
    optimizer = NewtonCG([w], radius=50.0)
    for _ in range(30):
        optimizer.step(problem())
    torch.testing.assert_close(w.detach(), torch.ones_like(w), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"method": "trust_regoin"}, "did you mean 'trust_region'"),
        ({"radius": 200.0}, r"optimizer\.radius"),
        ({"max_radius": 0.0}, r"optimizer\.max_radius"),
        ({"max_iter": 0}, r"optimizer\.max_iter"),
        ({"lr": -1.0}, r"optimizer\.lr"),
    ],
)
def test_numbers_out_of_range(numbers, message):
    with pytest.raises(ConfigError, match=message):
        NewtonCG([torch.zeros(1)], **numbers)
