"""Gradient descent sharpens a network until its step length is only just stable, and stays there.

The sharpness λmax(∇²J) rises to 2/η, above which steps on a quadratic would grow, and keeps to it
while J goes on falling. With a step so short that 2/η is never reached, nothing of it is seen.

Sharpness is looked at every few dozen steps. It counts as arrived at the first look at which it is
within 8 % of 2/η; all later looks count.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exactly, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "w ← w − η ∇J(w)   with   η λmax(∇²J) → 2"
SOURCE = "Cohen, Kaur, Li, Kolter & Talwalkar 2021, Gradient Descent … at the Edge of Stability"
COST = "2 min"
QUICK = [
    "hydra.sweeper.grids=[{optimizer.lr:0.1,trainer.max_epochs:2500},"
    "{optimizer.lr:0.002,trainer.max_epochs:500}]"
]
CLOSE = 0.08
"""How far from 2/η counts as being there."""


def stability(run: RunResult) -> np.ndarray:
    """Sharpness times step length, η λmax, look by look."""
    return run.config.optimizer.lr * series(run, "curvature/lambda_max")


def arrival(run: RunResult) -> int | None:
    """The look at which η λmax is first within 8 % of 2, if it ever is."""
    there = np.flatnonzero(np.abs(stability(run) / 2 - 1) <= CLOSE)
    return int(there[0]) if len(there) else None


def split(runs: Runs) -> tuple[list[RunResult], RunResult]:
    """The runs that are to get there, and the one with the smallest step length."""
    smallest, *others = runs.by("optimizer.lr").values()
    return [group.one for group in others], smallest.one


@claim(
    "sharpness rises to 2/η: shares of the step lengths at which it does",
    source="Cohen et al. 2021, §3.1",
    why="it does or it does not",
    expected=1.0,
    within=0.0,
)
def arrives(runs: Runs) -> Finding:
    """Of all step lengths but the smallest."""
    return exactly(float(np.mean([arrival(run) is not None for run in split(runs)[0]])))


@claim(
    "and stays there: average distance from 2/η, relative to it, at all later looks",
    source="Cohen et al. 2021, §3.1",
    why="fixed beforehand, with the claim",
    high=CLOSE,
)
def stays(runs: Runs) -> Finding:
    """The step length for which it is largest."""
    return exactly(max(map(_distance, split(runs)[0])))


def _distance(run: RunResult) -> float:
    start = arrival(run)
    if start is None:
        return math.inf
    return float(np.abs(stability(run)[start:] / 2 - 1).mean())


@claim(
    "while the loss still falls: J at the end over J on arrival",
    source="Cohen et al. 2021, §3.2",
    why="it falls by far more than it rises and falls from step to step",
    high=0.5,
)
def still_falls(runs: Runs) -> Finding:
    """The step length for which it is largest."""
    return exactly(max(map(_fall, split(runs)[0])))


def _fall(run: RunResult) -> float:
    start, values = arrival(run), series(run, "objective")
    return math.inf if start is None else float(values[-1] / values[start])


@claim(
    "at a step length too small to reach 2/η: greatest sharpness, relative to it",
    source="Cohen et al. 2021, §3.1",
    why="far enough from 2/η not to be held there",
    high=0.8,
)
def not_when_small(runs: Runs) -> Finding:
    """Of the smallest step length."""
    return exactly(float(stability(split(runs)[1]).max() / 2))


def draw(runs: Runs, figure: Figure) -> None:
    """Sharpness over the steps; 2/η of each step length as a line."""
    axes = figure.add_subplot()
    for i, (rate, group) in enumerate(runs.by("optimizer.lr").items()):
        run, color = group.one, f"C{i}"
        place: dict[str, Any] = {"textcoords": "offset points", "ha": "right"}
        sharpness = stability(run) / rate
        x = np.arange(len(sharpness)) * run.config.diagnostics.curvature.every.steps
        axes.plot(x, sharpness, color=color)
        if arrival(run) is not None:
            axes.axhline(2 / rate, color=color, linestyle="--", linewidth=1.2)
            axes.annotate(f"2/η, η = {rate:g}", (x[-1], 2 / rate), (0, 10), color=color, **place)
        else:
            name = f"η = {rate:g}, 2/η = {2 / rate:g}"
            k = len(x) // 2
            axes.annotate(name, (x[k], sharpness[k]), (0, -24), color=color, **place)
    axes.set(xlabel="step", ylim=(0, None))
    axes.set_title("sharpness λmax(∇²J)")
