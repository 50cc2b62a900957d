"""Gradient descent sharpens a network until its step length is only just stable, and stays there.

The sharpness λmax(∇²J) rises to 2/η, above which steps on a quadratic would grow, and keeps to it
while J goes on falling. With a step so short that 2/η is never reached, nothing of it is seen.

Sharpness is looked at every few dozen steps. It counts as arrived at the first look at which it is
within 8 % of 2/η; all later looks count. A seed is another training set and other initial weights.

Not at every look: on its way in it overshoots, and is thrown back by as much, before it settles to
within a few per cent. On one of the ten training sets it is thrown back in the first hundred steps
and still on its way up when training ends. Step lengths of 0.05 and 0.07 were tried too: they
overshoot alike, and on more training sets the problem is solved before they are at 2/η for good.
The median distance was put beside the greatest one after the quick study had been seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    read_series,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "w ← w − η ∇J(w)   with   η λmax(∇²J) → 2"
SOURCE = "Cohen, Kaur, Li, Kolter & Talwalkar 2021, Gradient Descent … at the Edge of Stability"
TOPIC = "Descent"
COST = "3 min"
QUICK = [
    write_grids(
        {"optimizer.lr": 0.1, "trainer.max_epochs": 2000, "seed": range(3)},
        {"optimizer.lr": 0.002, "trainer.max_epochs": 500},
    )
]
CLOSE = 0.08
"""How far from 2/η counts as being there."""


def read_stability(run: RunResult) -> np.ndarray:
    """Read sharpness times step length, η λmax, look by look."""
    return run.config.optimizer.lr * read_series(run, "curvature/lambda_max")


def find_arrival(run: RunResult) -> int | None:
    """Find the look at which η λmax is first within 8 % of 2, if it ever is."""
    there = np.flatnonzero(np.abs(read_stability(run) / 2 - 1) <= CLOSE)
    if not len(there):
        return None
    return int(there[0])


def runs_at_large_step(runs: Runs) -> Runs:
    """Pick the runs that are to get there: those with the greater step length."""
    # in ascending order
    return list(runs.grouped_by("optimizer.lr").values())[-1]


@claim(
    "sharpness rises to 2/η: share of the training sets on which it does",
    source="Cohen et al. 2021, §3.1",
    why="it does or it does not",
    expected=1.0,
    within=0.0,
)
def arrives(runs: Runs) -> Finding:
    """Of all training sets."""
    arrived = [find_arrival(run) is not None for run in runs_at_large_step(runs)]
    return exact_finding(float(np.mean(arrived)))


@claim(
    "and stays there: greatest distance from 2/η, relative to it, at any later look",
    source="Cohen et al. 2021, §3.1",
    why="fixed beforehand, with the claim",
    high=CLOSE,
)
def stays(runs: Runs) -> Finding:
    """The mean over training sets."""
    distances = map(distances_after_arrival, runs_at_large_step(runs))
    return mean_finding([float(distance.max()) for distance in distances])


@claim(
    "it is there at most looks: median distance from 2/η, relative to it, of all later looks",
    source="Cohen et al. 2021, §3.1",
    why="the same",
    high=CLOSE,
)
def mostly_stays(runs: Runs) -> Finding:
    """The mean over training sets."""
    distances = map(distances_after_arrival, runs_at_large_step(runs))
    return mean_finding([float(np.median(distance)) for distance in distances])


def distances_after_arrival(run: RunResult) -> np.ndarray:
    """Compute the distance from 2/η, relative to it, from the arrival on; infinite without one."""
    start = find_arrival(run)
    # never there counts as infinitely far, which fails the claim
    if start is None:
        return np.array([math.inf])
    return np.abs(read_stability(run)[start:] / 2 - 1)


@claim(
    "while the loss still falls: J at the end over J on arrival",
    source="Cohen et al. 2021, §3.2",
    why="it falls by far more than it rises and falls from step to step",
    high=0.5,
)
def still_falls(runs: Runs) -> Finding:
    """The mean over training sets."""
    return mean_finding([_loss_ratio(run) for run in runs_at_large_step(runs)])


def _loss_ratio(run: RunResult) -> float:
    start, values = find_arrival(run), read_series(run, "objective")
    if start is None:
        return math.inf
    return float(values[-1] / values[start])


@claim(
    "at a step length too small to reach 2/η: greatest sharpness, relative to it",
    source="Cohen et al. 2021, §3.1",
    why="far enough from 2/η not to be held there",
    high=0.8,
)
def not_when_small(runs: Runs) -> Finding:
    """Of the smallest step length."""
    # it has one run: the claim is about sharpness alone, whatever the training set
    run = min(runs, key=lambda run: float(run.config.optimizer.lr))
    return exact_finding(float(read_stability(run).max() / 2))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw sharpness over the steps, one training set's in bold; 8 % around 2/η as a band.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    axes = figure.add_subplot()
    for i, (rate, group) in enumerate(runs.grouped_by("optimizer.lr").items()):
        name = f"η = {rate:g}, 2/η = {2 / rate:g}"
        # one in bold, as ten curves cannot be followed
        _draw_line(axes, group[0], f"C{i}", name, {})
        for run in group[1:]:
            _draw_line(axes, run, f"C{i}", "", THIN)
        if find_arrival(group[0]) is not None:
            axes.axhspan(*(2 / rate * (1 + np.array([-CLOSE, CLOSE]))), color=f"C{i}", alpha=0.2)
    axes.set(xlabel="step", ylim=(0, None))
    axes.set_title("sharpness λmax(∇²J);  band: within 8 % of 2/η")


THIN: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.5}


def _draw_line(axes: Axes, run: RunResult, color: str, name: str, style: dict[str, Any]) -> None:
    sharpness = read_stability(run) / run.config.optimizer.lr
    x = np.arange(len(sharpness)) * run.config.diagnostics.curvature.every.steps
    axes.plot(x, sharpness, color=color, **style)
    place: dict[str, Any] = {"textcoords": "offset points", "color": color}
    if find_arrival(run) is not None:
        axes.annotate(name, (x[-1], sharpness[-1]), (0, 24), ha="right", **place)
    else:
        axes.annotate(name, (x[-1] / 2, sharpness[len(x) // 2]), (0, -26), **place)
