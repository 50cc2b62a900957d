"""Momentum goes as the root of the condition number; heavy ball need not converge off quadratics.

At their own step lengths heavy ball contracts by (√κ − 1)/(√κ + 1), Nesterov's method by 1 − 1/√κ,
on quadratics both. On Lessard's one-dimensional example, which is strongly convex and smooth too,
heavy ball goes round three points for ever, from where Nesterov's method converges.

Both have a double root at their best: the distance goes as (a + bt)ρᵗ, and ρ is read from the
distances after t and 2t steps, in which b cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from truerisk.reproductions.condition_number import double_root_factor
from truerisk.verdicts import Finding, Runs, claim, exact_finding, read_series, write_grids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "vₜ₊₁ = βvₜ − η∇J(wₜ + ζvₜ),  wₜ₊₁ = wₜ + vₜ₊₁;   heavy ball: ζ = 0   Nesterov: ζ = β"
SOURCE = "Polyak 1964; Nesterov 2004; Lessard, Recht & Packard 2016, §4.6 and §4.7"
TOPIC = "Descent"
COST = "30 s"
QUICK = [
    write_grids(
        {
            "optimizer": "momentum",
            "model.condition": 16,
            "optimizer.lr": 2.56,
            "optimizer.momentum": 0.36,
        },
        {
            "optimizer": "nesterov",
            "model.condition": 16,
            "optimizer.lr": 1.0,
            "optimizer.momentum": 0.6,
        },
        {
            "optimizer": "momentum",
            "model": "lessard",
            "optimizer.lr": 1 / 9,
            "optimizer.momentum": 4 / 9,
            "trainer.max_epochs": 120,
        },
        {
            "optimizer": "nesterov",
            "model": "lessard",
            "optimizer.lr": 1 / 25,
            "optimizer.momentum": 2 / 3,
            "trainer.max_epochs": 300,
        },
    )
]
LESSARD = "Lessard, Recht & Packard 2016, §4.6, equation 4.11"
DOUBLE_ROOT = "(a + bt)ρᵗ, measured at t ≈ 9/(1−ρ): a/b ≤ 1/(1−ρ) still adds ½(1−ρ)⁻²t⁻² ≈ 0.6 %"

CYCLE = np.array([-2208, 792, 2592]) / 1225
"""The three points, in ascending order."""


def pick_runs(runs: Runs, model: str, optimizer: str) -> Runs:
    """Keep the runs of one method on one function.

    Args:
        runs: the study's.
        model: the function's option.
        optimizer: the method's.
    """
    return runs.with_settings({"choices.model": model, "choices.optimizer": optimizer})


def compare_rates(runs: Runs, optimizer: str) -> Finding:
    """Divide 1 − the factor measured by 1 − ρ; of all κ the one that is furthest from 1.

    Args:
        runs: the study's.
        optimizer: the option's name.
    """
    ratios = []
    bowls = pick_runs(runs, "quadratic_bowl", optimizer)
    for kappa, group in bowls.grouped_by("model.condition").items():
        measured = double_root_factor(group.only_run)
        ratios.append((1 - measured) / (1 - predict_rate(kappa, optimizer)))
    return exact_finding(max(ratios, key=lambda ratio: abs(ratio - 1)))


def predict_rate(kappa: float, optimizer: str) -> float:
    """Compute ρ.

    Args:
        kappa: the condition number κ.
        optimizer: the option's name.
    """
    root = kappa**0.5
    if optimizer == "nesterov":
        return float(1 - 1 / root)
    return float((root - 1) / (root + 1))


@claim(
    "heavy ball contracts by ρ = (√κ−1)/(√κ+1); (1 − factor)/(1 − ρ)",
    source="Polyak 1964, §2",
    why=DOUBLE_ROOT,
    expected=1.0,
    within=0.01,
)
def heavy_ball_rate(runs: Runs) -> Finding:
    """The κ furthest from the theory."""
    return compare_rates(runs, "momentum")


@claim(
    "Nesterov's method contracts by ρ = 1 − 1/√κ; (1 − factor)/(1 − ρ)",
    source="Nesterov 2004, §2.2; Lessard, Recht & Packard 2016, §2.2",
    why=DOUBLE_ROOT,
    expected=1.0,
    within=0.01,
)
def nesterov_rate(runs: Runs) -> Finding:
    """The κ furthest from the theory."""
    return compare_rates(runs, "nesterov")


@claim(
    "from 3.07 … 3.46 heavy ball ends on the cycle of 3 points that is known; distance from it",
    source=LESSARD,
    why="steps lead into the cycle by a factor a round, so that rounding alone is left after 100",
    high=1e-9,
)
def heavy_ball_cycles(runs: Runs) -> Finding:
    """The largest distance of the last three points from the cycle's, over all starts."""
    lasts = [
        np.sort(read_series(run, "w/0")[-3:]) for run in pick_runs(runs, "lessard", "momentum")
    ]
    return exact_finding(max(float(np.abs(last - CYCLE).max()) for last in lasts))


@claim(
    "from the same starts Nesterov's method converges; distance from the minimum",
    source="Nesterov 2004, theorem 2.2.3",
    why="curvatures are at least 1, so that ‖w‖ ≤ ‖∇J‖, at which it ends: 10⁻⁸, and one step",
    high=1e-8,
)
def nesterov_converges(runs: Runs) -> Finding:
    """The largest distance at the end, over all starts."""
    ends = [abs(read_series(run, "w/0")[-1]) for run in pick_runs(runs, "lessard", "nesterov")]
    return exact_finding(max(ends))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw distances beside what ρ predicts, and both ways over Lessard's parabola.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2)
    names = {"momentum": "heavy ball", "nesterov": "Nesterov"}
    for i, (optimizer, name) in enumerate(names.items()):
        _draw_distances(left, runs, optimizer, f"C{i}")
        path = read_series(pick_runs(runs, "lessard", optimizer)[-1], "w/0")[:31]
        right.plot(path, "o-", color=f"C{i}", label=name, markersize=4, linewidth=1.4)
    for point in CYCLE:
        right.axhline(point, linestyle=":", linewidth=1.2, zorder=0)
    left.set(xlabel="step", yscale="log", ylim=(1e-9, 10))
    left.set_title("distance;  κ = 16, 64, 256")
    right.set(xlabel="step", title="w on Lessard's parabola")
    right.legend()


def _draw_distances(axes: Axes, runs: Runs, optimizer: str, color: str) -> None:
    """Draw all κ of a method, the theory dashed."""
    bowls = pick_runs(runs, "quadratic_bowl", optimizer)
    for kappa, group in bowls.grouped_by("model.condition").items():
        distances = read_series(group.only_run, "distance")
        t, rho = np.arange(len(distances)), predict_rate(kappa, optimizer)
        axes.plot(t, distances, color=color)
        # through the last point: constants are no part of the claim
        law = (1 + (1 - rho) * t) * rho**t
        axes.plot(t, law * distances[-1] / law[-1], "--", color=axes.xaxis.label.get_color(), lw=1)
