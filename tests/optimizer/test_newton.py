"""Newton's method: one step on a quadratic, Rosenbrock's valley, damping, and saddles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.optimizer import Newton
from truerisk.optimizer.newton import solve_positive_definite

FUNCTION = ["data=none", "optimizer=newton", "regularizer=[]"]


def spd(n):
    torch.manual_seed(0)
    m = torch.randn(n, n, dtype=torch.float64)
    return m @ m.T + 0.01 * torch.eye(n, dtype=torch.float64)


def test_a_quadratic_is_solved_in_one_step(function_problem):
    A, b = spd(8), torch.arange(8, dtype=torch.float64)
    w, problem = function_problem(lambda w: 0.5 * w @ A @ w - b @ w, [3.0] * 8)
    optimizer = Newton([w])
    optimizer.step(problem())
    assert optimizer.group["step_length"] == 1
    torch.testing.assert_close(w.detach(), torch.linalg.solve(A, b), rtol=1e-12, atol=0)


def test_a_bowl_is_solved_in_one_step(run):
    given = [*FUNCTION, "model=quadratic_bowl", "model.dimension=6", "model.condition=1e3"]
    result = run(*given, "model.rotation=1", "trainer.max_epochs=1")
    assert result.summary["distance"].value < 1e-12


def test_linear_regression_is_solved_in_one_step(stepping, micro_batches):
    given = ["data=diabetes", "model=linear", "loss=mse", "optimizer=newton", "regularizer=[]"]
    given += ["data.standardize_target=false"]
    recipe, step = stepping(*given)
    (micro,) = micro_batches(recipe, 1)
    step(micro)
    x, y = recipe.data.train.x, recipe.data.train.y
    design = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, y).solution[:, 0]
    found = torch.cat([p.detach().flatten() for p in recipe.model.parameters()])
    torch.testing.assert_close(found, solution, rtol=1e-8, atol=1e-10)


def test_rosenbrock_within_thirty_iterations(run):
    """From (−1.2, 1), where gradient descent takes thousands."""
    result = run(*FUNCTION, "model=rosenbrock", "model.start=[-1.2,1]", "trainer.max_epochs=30")
    assert result.history.step.max() == 30
    assert result.summary["distance"].value < 1e-12
    assert result.summary["risk/val"].value < 1e-12


def bent(w):
    """Eigenvalues of the Hessian at (1, 2, 0.5): 12, −8 and 0.02, along the axes."""
    return w[0] ** 4 - 4 * w[1] ** 2 + 0.01 * w[2] ** 2


GRADIENT = torch.tensor([4.0, -16.0, 0.01], dtype=torch.float64)
HESSIAN = torch.tensor([12.0, -8.0, 0.02], dtype=torch.float64)


def step_of(function_problem, **numbers):
    w, problem = function_problem(bent, [1.0, 2.0, 0.5])
    before = w.detach().clone()
    Newton([w], line_search=False, **numbers).step(problem())
    return w.detach() - before


@pytest.mark.parametrize("damping", [0.0, 3.0])
def test_saddle_free_divides_by_absolute_curvature(function_problem, damping):
    step = step_of(function_problem, saddle_free=True, damping=damping)
    torch.testing.assert_close(step, -GRADIENT / (HESSIAN.abs() + damping), rtol=1e-12, atol=0)


def test_damping_is_added_to_the_hessian(function_problem):
    step = step_of(function_problem, damping=9.0)
    torch.testing.assert_close(step, -GRADIENT / (HESSIAN + 9), rtol=1e-12, atol=0)


def test_an_indefinite_hessian_is_shifted_until_it_is_definite(function_problem):
    """τ = −λmin + 10⁻³ max|λ|, or the damping if that is more."""
    for damping in (0.0, 5.0):
        step = step_of(function_problem, damping=damping)
        tau = 8 + 1e-3 * 12
        torch.testing.assert_close(step, -GRADIENT / (HESSIAN + tau), rtol=1e-9, atol=0)


def test_lr_is_the_length_without_a_line_search(function_problem):
    step = step_of(function_problem, damping=9.0, lr=0.25)
    torch.testing.assert_close(step, -0.25 * GRADIENT / (HESSIAN + 9), rtol=1e-12, atol=0)


def test_saddle_free_leaves_a_saddle(run):
    """From (1, 0.01) on x² − y²; Newton's own step would end in the saddle."""
    given = [*FUNCTION, "model=saddle", "trainer.max_epochs=12"]
    free = run(*given, "optimizer.saddle_free=true")
    shifted = run(*given)
    for result in (free, shifted):
        assert result.history[result.history.name == "w/1"].value.abs().iloc[-1] > 1
    x, y = (free.history[free.history.name == f"w/{i}"].value.to_numpy() for i in (0, 1))
    assert abs(x[-1]) < 1e-12
    assert y[1] / y[0] == pytest.approx(2)  # y ← y + y at each step, as the curvature is −2


def test_a_singular_hessian_leaves_finite_weights(function_problem):
    """The last variable has no influence, and the quartic's curvature vanishes at its minimum."""
    w, problem = function_problem(lambda w: w[0] ** 2 + w[1] ** 4, [1.0, 0.0, 3.0])
    optimizer = Newton([w])
    for _ in range(3):
        optimizer.step(problem())
    torch.testing.assert_close(w.detach(), torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64))


def test_a_singular_hessian_gives_the_step_of_least_norm():
    """Cholesky passes by rounding in some of these; the null space must not enter the step."""
    generator = torch.Generator().manual_seed(0)
    passed = 0
    for n in (4, 9, 30):
        for _ in range(60):
            root = torch.randn(n, n - 1, generator=generator, dtype=torch.float64)
            hessian = root @ root.T
            gradient = hessian @ torch.randn(n, generator=generator, dtype=torch.float64)
            passed += not torch.linalg.cholesky_ex(hessian)[1]
            expected = np.linalg.lstsq(hessian.numpy(), gradient.numpy(), rcond=1e-11)[0]
            step = solve_positive_definite(hessian, gradient, 0.0)
            np.testing.assert_allclose(
                step.numpy(), expected, rtol=0, atol=1e-7 * abs(expected).max()
            )
    assert passed > 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_softmax_regression_is_not_damped_unasked(stepping, micro_batches, dtype):
    """A constant on all logits changes nothing: five of the fifteen eigenvalues are zero."""
    given = ["data=iris", "data.batch_size=full", "model=linear", "optimizer=newton"]
    recipe, step = stepping(*given, "optimizer.line_search=false", dtype=dtype)
    (micro,) = micro_batches(recipe, 1)
    before = torch.cat([p.detach().flatten() for p in recipe.model.parameters()])
    problem = step.pose_problem(list(micro))
    hessian, gradient = problem.hessian().double(), problem.gradient().double()
    assert torch.linalg.matrix_rank(hessian, hermitian=True, rtol=1e-5) == 10
    step(micro)
    after = torch.cat([p.detach().flatten() for p in recipe.model.parameters()])
    expected = np.linalg.lstsq(hessian.numpy(), -gradient.numpy(), rcond=1e-5)[0]
    within = 1e-9 if dtype == torch.float64 else 1e-3
    np.testing.assert_allclose(after - before, expected, rtol=0, atol=within * abs(expected).max())


def test_a_slope_along_the_null_space_is_followed():
    hessian = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    gradient = torch.tensor([1.0, 1.0], dtype=torch.float64)
    step = solve_positive_definite(hessian, gradient, 0.0)  # τ = 10⁻³ · 2
    torch.testing.assert_close(step, gradient / torch.tensor([2.002, 0.002]).double())


def test_at_a_minimum_nothing_moves(function_problem):
    w, problem = function_problem(lambda w: (w**2).sum() + 1e6, [0.0, 0.0])
    optimizer = Newton([w])
    optimizer.step(problem())
    assert optimizer.group["step_length"] == 0 and not w.any()


def test_large_models_are_refused():
    with pytest.raises(ConfigError, match=r"51 × 51.*newton_cg"):
        Newton([torch.zeros(51)], max_parameters=50)
    Newton([torch.zeros(50)], max_parameters=50)
