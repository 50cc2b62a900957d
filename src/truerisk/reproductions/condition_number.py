"""The condition number sets the speed of gradient descent, its root that of heavy ball.

On Boyd's bowl ½(x² + γy²), exact line search from (γ, 1) is as slow as its bound allows: J falls by
((γ − 1)/(γ + 1))² in every step. On a quadratic with curvatures from 1/κ to 1, plain descent and
heavy ball at their best step lengths need a number of steps that grows as κ and as √κ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exactly, series
from truerisk.verdicts.drawing import decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "J(w) = ½ wᵀHw,  κ = λmax/λmin;   ‖wₜ‖ ~ ρᵗ,  ρ = (κ−1)/(κ+1)  or  (√κ−1)/(√κ+1)"
SOURCE = "Boyd & Vandenberghe 2004, Convex Optimization, §9.3; Polyak 1964"
COST = "20 s"
QUICK: list[str] = []
BOYD, POLYAK = "Boyd & Vandenberghe 2004, §9.3.2", "Polyak 1964, §2"

REDUCED = 1e-6
"""Steps are counted until the distance from the minimum has fallen by this factor."""


def steps(run: RunResult) -> float:
    """Steps until the distance has fallen by ``REDUCED``, between two steps by interpolation."""
    logs = np.log(series(run, "distance"))
    return float(np.interp(-np.log(REDUCED), logs[0] - logs, np.arange(len(logs))))


def best(runs: Runs, optimizer: str) -> dict[float, RunResult]:
    """For each condition number the run that took the fewest steps."""
    groups = runs.only("choices.optimizer", optimizer).by("model.condition")
    return {kappa: min(group, key=steps) for kappa, group in groups.items()}


def slope(runs: Runs, optimizer: str) -> Finding:
    """The slope of log steps over log κ."""
    found = best(runs, optimizer)
    counts = [steps(run) for run in found.values()]
    return exactly(np.polyfit(np.log(list(found)), np.log(counts), 1)[0])


def last_factor(run: RunResult) -> float:
    """The distance after the last step over that before it."""
    distances = series(run, "distance")
    return float(distances[-1] / distances[-2])


def double_root_factor(run: RunResult) -> float:
    """ρ where distances go as (a + bt)ρᵗ: the t-th root of d₂ₜ/(2dₜ)."""
    distances = series(run, "distance")
    t = (len(distances) - 1) // 2
    return float((distances[2 * t] / (2 * distances[t])) ** (1 / t))


@claim(
    "exact line search: J falls by ((γ−1)/(γ+1))² in each step; the largest deviation",
    source=BOYD,
    why="rounding in double precision",
    high=1e-9,
)
def exact_line_search(runs: Runs) -> Finding:
    """The largest deviation over all γ and steps."""
    worst = 0.0
    for run in runs.only("choices.optimizer", "gd_exact"):
        gamma, values = run.config.model.spectrum[1], series(run, "objective")
        rate = ((gamma - 1) / (gamma + 1)) ** 2
        worst = max(worst, float(np.abs(values[1:] / values[:-1] - rate).max()))
    return exactly(worst)


@claim(
    "steps of gradient descent grow as κ; log–log slope",
    source=BOYD,
    why="log((κ+1)/(κ−1)) = 2/κ + O(κ⁻³), so the slope is 1 − O(κ⁻²)",
    expected=1.0,
    within=0.05,
)
def descent_grows_as_kappa(runs: Runs) -> Finding:
    """The slope for gradient descent."""
    return slope(runs, "gd")


@claim(
    "steps of heavy ball grow as √κ; log–log slope",
    source=POLYAK,
    why="a double root makes the distance (1 + (1+ρ)t)ρᵗ; the factor t adds about 0.03",
    expected=0.5,
    within=0.05,
)
def heavy_ball_grows_as_root(runs: Runs) -> Finding:
    """The slope for heavy ball."""
    return slope(runs, "momentum")


@claim(
    "no fixed step length contracts faster than ρ = (κ−1)/(κ+1); best factor over ρ",
    source=BOYD,
    why="rounding, over as many steps as are taken",
    expected=1.0,
    within=1e-6,
)
def best_descent(runs: Runs) -> Finding:
    """Of all step lengths tried for a κ the smallest factor; the κ furthest from its bound."""
    ratios = []
    for kappa, group in runs.only("choices.optimizer", "gd").by("model.condition").items():
        ratios.append(min(map(last_factor, group)) * (kappa + 1) / (kappa - 1))
    return exactly(max(ratios, key=lambda ratio: abs(ratio - 1)))


@claim(
    "heavy ball contracts by ρ = (√κ−1)/(√κ+1); (1 − factor)/(1 − ρ)",
    source=POLYAK,
    why="(a + bt)ρᵗ, measured at t ≈ 9/(1−ρ): a/b ≤ 1/(1−ρ) still adds ½(1−ρ)⁻²t⁻² ≈ 0.6 %",
    expected=1.0,
    within=0.01,
)
def heavy_ball_factor(runs: Runs) -> Finding:
    """The κ furthest from the bound."""
    ratios = []
    for kappa, run in best(runs, "momentum").items():
        root = kappa**0.5
        ratios.append((1 - double_root_factor(run)) / (1 - (root - 1) / (root + 1)))
    return exactly(max(ratios, key=lambda ratio: abs(ratio - 1)))


def draw(runs: Runs, figure: Figure) -> None:
    """Steps over κ, beside what the factors predict."""
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="condition number κ")
    axes.set_title("steps until the distance from the minimum has fallen by 10⁶")
    _series(runs, axes, "gd", "C0", "gradient descent, ~ κ", _descent)
    _series(runs, axes, "momentum", "C1", "heavy ball, ~ √κ", _heavy_ball)
    axes.margins(x=0.1)
    decimal(axes.xaxis)
    decimal(axes.yaxis)


def _series(
    runs: Runs, axes: Axes, optimizer: str, color: str, label: str, theory: Callable[[float], float]
) -> None:
    found = best(runs, optimizer)
    x = np.geomspace(min(found), max(found))
    axes.plot(x, [theory(k) for k in x], color=color, linewidth=1.2)
    axes.plot(list(found), [steps(run) for run in found.values()], "o", color=color)
    middle = x[len(x) // 2]
    axes.annotate(
        label, (middle, theory(middle)), (-12, 12), textcoords="offset points",
        color=color, ha="right",
    )  # fmt: skip


def _descent(kappa: float) -> float:
    return float(np.log(REDUCED) / np.log((kappa - 1) / (kappa + 1)))


def _heavy_ball(kappa: float) -> float:
    """Where both (1 + (1−ρ)t)ρᵗ, along λmin, and (1 + (1+ρ)t)ρᵗ, along λmax, have fallen."""
    from scipy.optimize import brentq

    rho = (kappa**0.5 - 1) / (kappa**0.5 + 1)

    def excess(t: float) -> float:
        both = np.hypot(1 + (1 - rho) * t, 1 + (1 + rho) * t) / np.sqrt(2)
        return float(np.log(both) + t * np.log(rho) - np.log(REDUCED))

    return float(brentq(excess, 0, 1e6))
