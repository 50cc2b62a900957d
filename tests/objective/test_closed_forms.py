"""Quadratic, linear and logistic regression."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core.batch import Batch
from truerisk.loss import adapt_loss
from truerisk.model import Linear
from truerisk.objective import (
    GaussNewtonOperator,
    HessianOperator,
    LocalObjective,
    Objective,
    condition_number,
    directional_derivative,
    gradient,
    jacobian,
    optimal_step_size,
    per_sample_gradients,
    taylor_polynomial,
)
from truerisk.regularizer import L2


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **({"rtol": 1e-9, "atol": 1e-12} | tolerance))


@pytest.fixture
def quadratic(point_on, symmetric):
    """½wᵀAw + bᵀw at a random point."""
    a = symmetric(0.5, 1.0, 3.0, 8.0)
    b = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    return a, b, point_on(lambda w: 0.5 * w @ a @ w + b @ w, 1.0, 2.0, -1.0, 0.5)


def test_quadratic(quadratic):
    a, b, point = quadratic
    g = a @ point.w + b
    close(gradient(point), g)
    close(HessianOperator(point).dense(), a)
    v = torch.tensor([1.0, 0.0, 2.0, -1.0], dtype=torch.float64)
    close(directional_derivative(point, v), g @ v)
    close(torch.tensor(optimal_step_size(point)), (g @ g / (g @ a @ g)).float(), rtol=1e-6)
    assert optimal_step_size(point) == pytest.approx(float(g @ g / (g @ a @ g)), rel=1e-12)
    assert condition_number(HessianOperator(point)) == pytest.approx(16, rel=1e-9)


def test_taylor_of_a_quadratic_is_exact(quadratic):
    _, _, point = quadratic
    step = torch.tensor([3.0, -1.0, 2.0, 5.0], dtype=torch.float64)
    model = taylor_polynomial(point, step)
    for t in (0.0, 0.3, 1.0, -2.0):
        close(model.second(t), point.move_to(point.w + t * step).value())
    close(model.first(2.0), point.value() + 2 * directional_derivative(point, step))


def test_optimal_step_size_minimises_along_the_direction(quadratic):
    _, _, point = quadratic
    d = torch.tensor([1.0, 0.0, 0.0, -1.0], dtype=torch.float64)
    for direction in (d, -d, -gradient(point)):
        best = optimal_step_size(point, direction)
        at = [point.move_to(point.w + t * best * direction).value() for t in (0.99, 1.0, 1.01)]
        assert at[1] < min(at[0], at[2])


def test_step_sizes_without_a_minimum(point_on):
    hill = point_on(lambda w: w[0] - w[0] ** 2, 0.0)
    assert optimal_step_size(hill) == float("inf")
    assert optimal_step_size(hill, torch.ones(1).double()) == -float("inf")
    assert optimal_step_size(hill, torch.zeros(1).double()) != optimal_step_size(hill)
    top = point_on(lambda w: (w**2).sum(), 0.0)
    assert optimal_step_size(top) != optimal_step_size(top)  # nan


def half_squares(outputs, y):
    return 0.5 * (outputs - y).square().sum(1)


@pytest.fixture
def design():
    torch.manual_seed(0)
    return torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)


def test_linear_regression(design):
    """J = 1/N ½‖Xw − y‖²: ∇J = Xᵀ(Xw − y)/N, ∇²J = XᵀX/N, and the Gauss–Newton matrix too."""
    x, y = design
    model = Linear((5,), 1, bias=False).double()
    batches = [Batch(x[:3], y[:3]), Batch(x[3:], y[3:])]
    point = LocalObjective(Objective(model, half_squares), None, batches)
    w, n = point.w, len(x)
    residual = x @ w[:, None] - y
    close(point.value(), half_squares(x @ w[:, None], y).mean())
    close(gradient(point), (x.T @ residual).squeeze() / n)
    for operator in (HessianOperator, GaussNewtonOperator):
        close(operator(point).dense(), x.T @ x / n)
    close(jacobian(point).squeeze(1), x)
    close(torch.cat([*per_sample_gradients(point)]), x * residual)


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_logistic_regression(design, penalty):
    """∇²J = XᵀDX/N + λI with D = p(1 − p), and Gauss–Newton is the Hessian."""
    x, _ = design
    y = torch.arange(20) % 2
    loss = adapt_loss(nn.BCEWithLogitsLoss(reduction="none"), "classification", 2)
    model = Linear((5,), 1, bias=False).double()
    objective = Objective(model, loss, {"l2": L2(penalty).penalty})
    point = LocalObjective(objective, None, [Batch(x, y)])
    p = (x @ point.w).sigmoid()
    close(gradient(point), x.T @ (p - y) / 20 + penalty * point.w)
    expected = x.T @ torch.diag(p * (1 - p)) @ x / 20 + penalty * torch.eye(5).to(x)
    for operator in (HessianOperator, GaussNewtonOperator):
        close(operator(point).dense(), expected)


def test_multinomial_regression_gauss_newton_is_the_hessian_and_the_fisher_matrix(design):
    x, _ = design
    loss = adapt_loss(nn.CrossEntropyLoss(reduction="none"), "classification", 3)
    model = Linear((5,), 3).double()
    point = LocalObjective(Objective(model, loss), None, [Batch(x, torch.arange(20) % 3)])
    close(GaussNewtonOperator(point).dense(), HessianOperator(point).dense())
    fisher = 0
    with torch.no_grad():
        p = model(x).softmax(1)
    for label in range(3):
        at = LocalObjective(point.objective, None, [Batch(x, torch.full((20,), label))])
        (rows,) = per_sample_gradients(at)
        fisher += rows.T @ (p[:, label, None] * rows) / 20
    close(GaussNewtonOperator(point).dense(), fisher)
