"""Gauss–Newton: its step against a dense solution, and Levenberg–Marquardt's damping."""

from __future__ import annotations

import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.optimizer import GaussNewton

SMALL = ["data=iris", "model.width=4", "model.depth=1", "model.activation=tanh", "regularizer=[]"]


def first_step(stepping, micro_batches, *given):
    """A recipe's first step: J, ∇J, B and the step."""
    _, step = stepping(*SMALL, "optimizer=gauss_newton", *given)
    recipe, _ = stepping(*SMALL, "optimizer=gauss_newton", *given)
    (micro,) = micro_batches(recipe, 1)
    problem = step.pose_problem(micro)
    g, w = problem.gradient().clone(), problem.copy_weights()
    eye = torch.eye(len(w), dtype=w.dtype)
    B = torch.stack([problem.gauss_newton_product(e) for e in eye], dim=1)
    step.optimizer.step(problem)
    return problem, g, B, problem.copy_weights() - w, step.optimizer.group


def test_a_step_solves_the_damped_system(stepping, micro_batches):
    """(B + λI) p = −∇J; conjugate gradients end before the last digits."""
    _, g, B, p, group = first_step(stepping, micro_batches, "optimizer.damping=0.5")
    exact = -torch.linalg.solve(B + 0.5 * torch.eye(len(g)), g)
    assert group["step_length"] == 1
    assert (p - exact).norm() < 1e-3 * exact.norm()


def test_linear_regression_is_solved_where_damping_allows(stepping, micro_batches, objective_value):
    given = ["data=diabetes", "model=linear", "loss=mse", "optimizer=gauss_newton"]
    given += ["data.standardize_target=false"]
    recipe, step = stepping(*given, "regularizer=[]")
    for micro in micro_batches(recipe, 60):
        step(micro)
    x, y = recipe.data.train.x, recipe.data.train.y
    design = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, y).solution
    least = (design @ solution - y).square().mean().item()
    assert objective_value(step, micro) == pytest.approx(least, rel=1e-6)
    assert step.optimizer.group["damping"] < 1e-6


def ratio(problem, g, B, p, value):
    return ((value - problem.value()) / (g @ p + 0.5 * p @ B @ p)).item()


@pytest.mark.parametrize("damping", [1e-6, 0.5])
def test_damping_follows_the_quality_of_the_model(stepping, micro_batches, damping):
    """It doubles where ρ < ¼ and halves where ρ > ¾, with ρ from dense matrices."""
    given = [f"optimizer.damping={damping}", "optimizer.rate=2"]
    problem, g, B, p, group = first_step(stepping, micro_batches, *given)
    full = p / group["step_length"]
    w = problem.copy_weights() - p
    rho = ratio(problem, g, B, full, problem.value(w + full))
    expected = damping * (2 if rho < 0.25 else 0.5 if rho > 0.75 else 1)
    assert (rho < 0.25) == (damping == 1e-6) and (rho > 0.75) == (damping == 0.5)
    assert group["damping"] == expected


def test_without_curvature_it_is_gradient_descent(stepping, micro_batches):
    """The hinge loss is piecewise linear: B = 0, and p = −∇J/λ."""
    given = ["loss=hinge", "optimizer.damping=50"]
    _, g, B, p, group = first_step(stepping, micro_batches, *given)
    assert not B.any()
    torch.testing.assert_close(p, -group["step_length"] * g / 50)


@pytest.mark.parametrize("numbers", [{"damping": 0.0}, {"rate": 1.0}, {"max_iter": 0}, {"lr": 0.0}])
def test_numbers_out_of_range(numbers):
    with pytest.raises(ConfigError, match=rf"optimizer\.{next(iter(numbers))}"):
        GaussNewton([torch.zeros(1)], **numbers)
