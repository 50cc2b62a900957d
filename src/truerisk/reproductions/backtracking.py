"""Backtracking finds a step that decreases enough, and descent with it converges from any start.

Each step satisfies Armijo's condition, the step length is halved no more often than the largest
curvature M allows, and the distance of J from its lowest value falls by a factor in each step that
depends on M and the least curvature m alone. M and m are those of the set on which J is no higher
than at the start: eigenvalues of a quadratic, and found on a fine grid for the sum of exponentials.

Near the minimum what a step gains is lost in the rounding of J, so that steps which gain less than
10⁻⁹ of J are left out of the factor.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exact_finding, read_series, read_setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = (
    "J(w − t∇J) ≤ J(w) − αt‖∇J‖²,  t ∈ {1, β, β², …};   t = 1 or t > β/M,  J⁺ − J* ≤ c (J − J*)"
)
SOURCE = "Boyd & Vandenberghe 2004, Convex Optimization, §9.2 and §9.3"
TOPIC = "Descent"
COST = "30 s"
QUICK = [
    "hydra.sweeper.grids=[{model.start:'[-2,1],[2,0.5]'},"
    "{model:quadratic_bowl,model.spectrum:'[1,10]',model.rotation:0,model.start:'[1,1]'}]"
]
BOYD = "Boyd & Vandenberghe 2004, §9.3.1"

ROWS = np.array([[1.0, 3.0], [1.0, -3.0], [-1.0, 0.0]])
"""The exponents of the sum of exponentials, −0.1 beside each."""


class CurvatureBounds(NamedTuple):
    """Bounds on a convex function where it is no higher than at a start."""

    least: float
    """m, of the Hessian's eigenvalues"""
    largest: float
    """M, of them"""
    third: float
    """L, with which the Hessian is Lipschitz"""


@cache
def bound_curvature(start: tuple[float, ...]) -> CurvatureBounds:
    """Bound the curvature of the sum of exponentials below its value at a start.

    Args:
        start: two numbers, before any change of variables.
    """
    top = np.exp(ROWS @ start - 0.1).sum()
    # each exponential is less than their sum, which puts a box around the set
    right = np.log(top) + 0.1
    x = np.linspace(-right, right, 801)
    y = np.linspace(-2 * right / 3, 2 * right / 3, 801)
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    terms = np.exp(points @ ROWS.T - 0.1)
    terms = terms[terms.sum(1) <= top]
    hessians = np.einsum("ni,ij,ik->njk", terms, ROWS, ROWS)
    eigenvalues = np.linalg.eigvalsh(hessians)
    third = terms @ np.linalg.norm(ROWS, axis=1) ** 3
    return CurvatureBounds(eigenvalues.min(), eigenvalues.max(), third.max())


def read_curvature(run: RunResult) -> CurvatureBounds:
    """Bound the curvature on a run's way."""
    if read_setting(run, "choices.model") == "quadratic_bowl":
        bowl: Any = run.model
        values = bowl.eigenvalues
        return CurvatureBounds(float(values.min()), float(values.max()), 0.0)
    return bound_curvature(tuple(map(float, read_setting(run, "model.start"))))


def read_path(run: RunResult) -> np.ndarray:
    """Read the weights [steps + 1, 2] of a run in the plane."""
    return np.stack([read_series(run, f"w/{i}") for i in (0, 1)], 1)


def step_lengths(run: RunResult, directions: np.ndarray | None = None) -> np.ndarray:
    """Compute t [steps] from the way made; 0 where there was no direction.

    Args:
        run: of a method that makes t times a direction.
        directions: its norms [steps]; None for the gradient's.
    """
    made = np.linalg.norm(np.diff(read_path(run), axis=0), axis=1)
    norms = read_series(run, "grad_norm") if directions is None else directions
    return np.divide(made, norms, out=np.zeros_like(made), where=norms > 0)


def excess(run: RunResult) -> np.ndarray:
    """Compute J − J* [steps + 1]."""
    return np.asarray(read_series(run, "objective") - run.model.minimum)


@claim(
    "every step satisfies Armijo's condition: its decrease over t‖∇J‖², at least α = 0.3",
    source="Boyd & Vandenberghe 2004, §9.2, algorithm 9.2",
    why="α, less the rounding of J, which is 10⁻⁴ of what the last step gains",
    low=0.2999,
)
def armijo(runs: Runs) -> Finding:
    """The smallest over all steps."""
    ratios = []
    for run in runs:
        gained = -np.diff(read_series(run, "objective"))
        promised = step_lengths(run) * read_series(run, "grad_norm") ** 2
        ratios.append((gained / promised).min())
    return exact_finding(min(ratios))


@claim(
    "from any start it ends at ‖∇J‖ ≤ ε = 10⁻⁵; largest ‖∇J‖ at the end, over ε",
    source=BOYD,
    why="the tolerance itself",
    high=1.0,
)
def ends_at_the_minimum(runs: Runs) -> Finding:
    """Of the gradients that the last steps began with, over all runs."""
    tolerance = read_setting(runs[0], "stop.gradient_norm")
    return exact_finding(max(read_series(run, "grad_norm")[-1] for run in runs) / tolerance)


@claim(
    "t is halved at most ⌈log₂ M⌉ times: halvings beyond that, the most in a step",
    source=BOYD,
    why="Armijo's condition holds for every t ≤ 1/M; a whole number",
    high=0.0,
)
def halvings(runs: Runs) -> Finding:
    """The largest over all steps; negative where the bound is never reached."""
    most = []
    for run in runs:
        allowed = max(0.0, np.ceil(np.log2(read_curvature(run).largest)))
        most.append(np.rint(-np.log2(step_lengths(run))).max() - allowed)
    return exact_finding(max(most) + 0.0)  # no −0


@claim(
    "J − J* falls by c = 1 − 2αm min{1, β/M} a step at least: largest factor, over c",
    source=BOYD,
    why="the bound itself, and the rounding of J where 10⁻⁹ of it is left",
    high=1 + 1e-6,
)
def linear_convergence(runs: Runs) -> Finding:
    """The largest over all steps that can be seen."""
    ratios = []
    for run in runs:
        m, largest, _ = read_curvature(run)
        c = 1 - 2 * 0.3 * m * min(1, 0.5 / largest)
        left = excess(run)
        seen = left[:-1] > 1e-9 * np.abs(read_series(run, "objective")[:-1])
        ratios.append((left[1:] / left[:-1])[seen].max() / c)
    return exact_finding(max(ratios))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the ways from all starts on the sum of exponentials, and what is left of J − J*.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2)
    x, y = np.meshgrid(np.linspace(-2.3, 2.3, 200), np.linspace(-1.3, 1.3, 200))
    values = np.exp(np.stack([x, y], -1) @ ROWS.T - 0.1).sum(-1)
    left.contour(x, y, np.log(values), 10, colors="gray", linewidths=0.6)
    sums = runs.with_setting("choices.model", "exponential_sum")
    for i, run in enumerate(sums):
        path = read_path(run)
        left.plot(*path.T, "o-", color=f"C{i % 5}", markersize=3, linewidth=1.2)
        right.semilogy(np.maximum(excess(run), 1e-16), color=f"C{i % 5}", linewidth=1.6)
    left.set(title="from nine starts", xlabel="x", ylabel="y")
    right.set(title="J − J*", xlabel="step", ylim=(1e-11, None))
