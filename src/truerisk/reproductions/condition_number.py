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
from truerisk.verdicts import Finding, Runs, claim, exact_finding, read_series
from truerisk.verdicts.gallery import set_decimal_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "J(w) = ½ wᵀHw,  κ = λmax/λmin;   ‖wₜ‖ ~ ρᵗ,  ρ = (κ−1)/(κ+1)  or  (√κ−1)/(√κ+1)"
SOURCE = "Boyd & Vandenberghe 2004, Convex Optimization, §9.3; Polyak 1964"
TOPIC = "Descent"
COST = "30 s"
QUICK: list[str] = []
BOYD, POLYAK = "Boyd & Vandenberghe 2004, §9.3.2", "Polyak 1964, §2"

REDUCED = 1e-6
"""Steps are counted until the distance from the minimum has fallen by this factor."""


def count_steps(run: RunResult) -> float:
    """Count steps until the distance has fallen by ``REDUCED``, with interpolation in between."""
    logs = np.log(read_series(run, "distance"))
    # distances fall by a constant factor: their logarithms are interpolated
    return float(np.interp(-np.log(REDUCED), logs[0] - logs, np.arange(len(logs))))


def fastest_runs(runs: Runs, optimizer: str) -> dict[float, RunResult]:
    """Find for each condition number the run that took the fewest steps.

    Args:
        runs: the study's.
        optimizer: the option's name.
    """
    groups = runs.with_setting("choices.optimizer", optimizer).grouped_by("model.condition")
    # one κ is tried at other step lengths too
    return {kappa: min(group, key=count_steps) for kappa, group in groups.items()}


def fit_slope(runs: Runs, optimizer: str) -> Finding:
    """Fit the slope of log steps over log κ.

    Args:
        runs: the study's.
        optimizer: the option's name.
    """
    fastest = fastest_runs(runs, optimizer)
    counts = [count_steps(run) for run in fastest.values()]
    return exact_finding(np.polyfit(np.log(list(fastest)), np.log(counts), 1)[0])


def last_factor(run: RunResult) -> float:
    """Divide the distance after the last step by that before it."""
    distances = read_series(run, "distance")
    return float(distances[-1] / distances[-2])


def double_root_factor(run: RunResult) -> float:
    """Compute ρ where distances go as (a + bt)ρᵗ: the t-th root of d₂ₜ/(2dₜ)."""
    distances = read_series(run, "distance")
    # the ratio of d at 2t and at t cancels b, and a is small beside bt
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
    for run in runs.with_setting("choices.optimizer", "gd_exact"):
        gamma, values = run.config.model.spectrum[1], read_series(run, "objective")
        rate = ((gamma - 1) / (gamma + 1)) ** 2
        worst = max(worst, float(np.abs(values[1:] / values[:-1] - rate).max()))
    return exact_finding(worst)


@claim(
    "steps of gradient descent grow as κ; log–log slope",
    source=BOYD,
    why="log((κ+1)/(κ−1)) = 2/κ + O(κ⁻³), so the slope is 1 − O(κ⁻²)",
    expected=1.0,
    within=0.05,
)
def descent_grows_as_kappa(runs: Runs) -> Finding:
    """The slope for gradient descent."""
    return fit_slope(runs, "gd")


@claim(
    "steps of heavy ball grow as √κ; log–log slope",
    source=POLYAK,
    why="a double root makes the distance (1 + (1+ρ)t)ρᵗ; the factor t adds about 0.03",
    expected=0.5,
    within=0.05,
)
def heavy_ball_grows_as_root(runs: Runs) -> Finding:
    """The slope for heavy ball."""
    return fit_slope(runs, "momentum")


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
    descents = runs.with_setting("choices.optimizer", "gd")
    for kappa, group in descents.grouped_by("model.condition").items():
        ratios.append(min(map(last_factor, group)) * (kappa + 1) / (kappa - 1))
    return exact_finding(max(ratios, key=lambda ratio: abs(ratio - 1)))


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
    for kappa, run in fastest_runs(runs, "momentum").items():
        root = kappa**0.5
        ratios.append((1 - double_root_factor(run)) / (1 - (root - 1) / (root + 1)))
    return exact_finding(max(ratios, key=lambda ratio: abs(ratio - 1)))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw steps over κ, beside what the factors predict.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="condition number κ")
    axes.set_title("steps until the distance from the minimum has fallen by 10⁶")
    _draw_series(runs, axes, "gd", "C0", "gradient descent, ~ κ", _predict_descent)
    _draw_series(runs, axes, "momentum", "C1", "heavy ball, ~ √κ", _predict_heavy_ball)
    axes.margins(x=0.1)
    set_decimal_ticks(axes.xaxis)
    set_decimal_ticks(axes.yaxis)


def _draw_series(
    runs: Runs, axes: Axes, optimizer: str, color: str, label: str, theory: Callable[[float], float]
) -> None:
    fastest = fastest_runs(runs, optimizer)
    x = np.geomspace(min(fastest), max(fastest))
    axes.plot(x, [theory(k) for k in x], color=color, linewidth=1.2)
    axes.plot(list(fastest), [count_steps(run) for run in fastest.values()], "o", color=color)
    middle = x[len(x) // 2]
    axes.annotate(
        label, (middle, theory(middle)), (-12, 12), textcoords="offset points",
        color=color, ha="right",
    )  # fmt: skip


def _predict_descent(kappa: float) -> float:
    return float(np.log(REDUCED) / np.log((kappa - 1) / (kappa + 1)))


def _predict_heavy_ball(kappa: float) -> float:
    """Solve for when (1 + (1−ρ)t)ρᵗ, along λmin, and (1 + (1+ρ)t)ρᵗ, along λmax, have fallen."""
    from scipy.optimize import brentq

    rho = (kappa**0.5 - 1) / (kappa**0.5 + 1)

    def excess(t: float) -> float:
        both = np.hypot(1 + (1 - rho) * t, 1 + (1 + rho) * t) / np.sqrt(2)
        return float(np.log(both) + t * np.log(rho) - np.log(REDUCED))

    # the excess falls from above 0 at no step to below it at a million
    return float(brentq(excess, 0, 1e6))
