"""Gradient descent on a quadratic diverges exactly above the step length 2/λmax.

The coordinate along the eigenvector of λ is multiplied by 1 − ηλ in each step, so that the distance
is known after any number of them: below 2/λmax it goes to 0, above it grows without end, and at it
the steepest coordinate goes to and fro for ever. A cubic has no lowest value; there it is the
function that makes the path endless, with the shortest step too, and the run says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    read_series,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "wₜ = Σ (1 − ηλᵢ)ᵗ cᵢvᵢ;   ‖wₜ‖ → 0   just where   η < 2/λmax"
SOURCE = "Nesterov 2004, Introductory Lectures on Convex Optimization, §1.2.3; Polyak 1987, §1.4"
TOPIC = "Descent"
COST = "30 s"
QUICK = [
    "trainer.max_epochs=60",
    write_grids(
        {
            "model.dimension": 3,
            "model.condition": 4,
            "model.rotation": 0,
            "optimizer.lr": [1.999, 2.001],
        },
        {"model": "cubic", "model.start": "[1.1]", "optimizer.lr": 0.1},
        {"model": "cubic", "model.start": "[0.9]", "optimizer.lr": 0.1},
    ),
]
POLYAK = "Polyak 1987, Introduction to Optimization, §1.4.2, theorem 3"


def pick_bowls(runs: Runs) -> Runs:
    """Keep the runs on quadratics."""
    return runs.with_setting("choices.model", "quadratic_bowl")


def relative_step(run: RunResult) -> float:
    """Compute ηλmax, of which 2 is the limit."""
    bowl: Any = run.model
    return float(read_setting(run, "optimizer.lr") * bowl.eigenvalues.max())


def last_growth(run: RunResult) -> float:
    """Divide the distance after the last step by that before it."""
    distances = read_series(run, "distance")
    return float(distances[-1] / distances[-2])


def predict_distances(run: RunResult) -> np.ndarray:
    """Compute ‖wₜ‖ = √Σ cᵢ²(1 − ηλᵢ)²ᵗ for every step t [n] of a run on a quadratic."""
    bowl: Any = run.model
    start = np.array([read_series(run, f"w/{i}")[0] for i in range(bowl.size)])
    coordinates = start @ bowl.eigenvectors.numpy()
    factors = 1 - read_setting(run, "optimizer.lr") * bowl.eigenvalues.numpy()
    steps = np.arange(len(read_series(run, "distance")))[:, None]
    return np.asarray(np.sqrt((coordinates**2 * np.abs(factors) ** (2 * steps)).sum(1)))


@claim(
    "the distance grows just where η > 2/λmax; share of runs, from 0.1 % beside the limit on",
    source=POLYAK,
    why="every run has to",
    expected=1.0,
    within=0.0,
)
def diverges_above_the_limit(runs: Runs) -> Finding:
    """In the last step, by when the steepest coordinate is the largest; runs at the limit apart."""
    beside = [run for run in pick_bowls(runs) if abs(relative_step(run) - 2) > 1e-9]
    return exact_finding(
        float(np.mean([(last_growth(run) > 1) == (relative_step(run) > 2) for run in beside]))
    )


@claim(
    "after every step the distance is √Σ cᵢ²(1 − ηλᵢ)²ᵗ; largest relative deviation",
    source=POLYAK,
    why="rounding in double precision, over some hundred steps",
    high=1e-11,
)
def distances_in_closed_form(runs: Runs) -> Finding:
    """Over all steps of all runs on quadratics."""
    return exact_finding(
        max(
            float(np.abs(read_series(run, "distance") / predict_distances(run) - 1).max())
            for run in pick_bowls(runs)
        )
    )


@claim(
    "a path is told to be endless for want of a lowest value just where it is; share of runs",
    source="f(x) = −x³ + 3x falls without end from x > 1, and nowhere else within reach",
    why="every run has to, quadratics among them",
    expected=1.0,
    within=0.0,
)
def cubic_is_unbounded(runs: Runs) -> Finding:
    """On the cubic from above 1, and not from below, nor on a quadratic."""
    right = []
    for run in runs:
        endless = (
            read_setting(run, "choices.model") == "cubic"
            and read_setting(run, "model.start")[0] > 1
        )
        told = run.status == "diverged" and "unbounded below" in run.reason
        right.append(told == endless)
    return exact_finding(float(np.mean(right)))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the distance over the steps, and its growth over the step length.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2)
    rotated = pick_bowls(runs).with_setting("model.condition", 4)
    chosen = [run for run in rotated if read_setting(run, "model.spectrum") is None]
    for i, eta in enumerate((1.9, 1.999, 2.001, 2.1)):
        for run in chosen:
            if read_setting(run, "optimizer.lr") == eta:
                left.semilogy(read_series(run, "distance")[:101], color=f"C{i}", label=f"{eta:g}")
    left.set(xlabel="step", title="distance from the minimum")
    left.legend(title="η λmax", fontsize="small")
    steps = np.linspace(0.25, 2.2, 300)
    bowl: Any = chosen[0].model
    spectrum = bowl.eigenvalues.numpy()
    right.plot(steps, np.abs(1 - np.outer(steps, spectrum)).max(1), color="C0")
    right.plot(list(map(relative_step, chosen)), list(map(last_growth, chosen)), "o", color="C1")
    right.axhline(1, linestyle=":", linewidth=1.2)
    right.axvline(2, linestyle=":", linewidth=1.2)
    right.set(xlabel="η λmax", title="growth in a step;  — max |1 − ηλ|")
