"""A recurrent network learns what it fails to when its gradient's norm is clipped.

A tanh network of 50 units reads 30 symbols and is to tell which of two came first, near the
beginning, and which second, in the middle: chance errs on three quarters. Where the gradient
explodes, a step of SGD leads far away, and the network does not come back.

Length, width, samples and epochs, and the rate that is looked at, are those of a pilot on seed 99.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    load_last_weights,
    mean_finding,
    read_series,
    read_setting,
    write_grids,
)
from truerisk.verdicts.gallery import say_not_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from truerisk.result import RunResult

FORMULA = "ĝ = g · min(1, c/‖g‖)"
SOURCE = "Pascanu, Mikolov & Bengio 2013, On the Difficulty of Training Recurrent Neural Networks"
TOPIC = "Depth, recurrence and initialization"
COST = "4 min"
STEP = {"trainer.max_epochs": -1, "trainer.max_steps": 1, "trainer.precision": "64-true"}
# unclipped, so short a run says nothing about how norms explode
FLOW = {
    **{"optimizer.lr": 0.1, "step.clip.norm": 1, "diagnostics": "[gradient_flow]"},
    **{"diagnostics.gradient_flow.every.steps": 1, "trainer.max_epochs": 2},
}
QUICK = [
    *("seed=range(2)", "data.source.num_samples=1500", "data.val=500"),
    write_grids(
        FLOW,
        {"optimizer.lr": 0.1, "step.clip.norm": [None, 1e-3], **STEP},
        {"optimizer.lr": 0.0, **STEP},
    ),
]
RATE, NORM, SHORT = 0.1, 1.0, 1e-3
"""The rate that is looked at, the largest norm in training, and that of the one step."""
SOLVED = 0.01
"""The error below which Pascanu et al. call the task solved."""


def select_trained(runs: Runs, clipped: bool) -> dict[float, list[RunResult]]:
    """Pick the runs of all epochs, by their rate.

    Args:
        runs: the study's.
        clipped: whether those with a clipped gradient.
    """
    found: dict[float, list[RunResult]] = {}
    for run in runs:
        whole = read_setting(run, "trainer.max_epochs") > 0 and not run.config.diagnostics
        if whole and bool(read_setting(run, "step.clip.norm")) == clipped:
            found.setdefault(read_setting(run, "optimizer.lr"), []).append(run)
    return dict(sorted(found.items()))


def read_errors(runs: Runs, clipped: bool) -> list[float]:
    """Read the last validation errors at the rate that is looked at."""
    chosen = select_trained(runs, clipped).get(RATE, ())
    return [float(read_series(run, "error/val")[-1]) for run in chosen] or [math.nan]


@claim(
    "clipped, at a rate of 0.1: validation error at the end",
    source="Pascanu et al. 2013, §4.1: solved below an error of 1 %",
    why="the source's own criterion",
    high=SOLVED,
)
def clipped_learns(runs: Runs) -> Finding:
    """The mean over seeds."""
    return mean_finding(read_errors(runs, clipped=True))


@claim(
    "not clipped, at the same rate: validation error at the end",
    source="Pascanu et al. 2013, §4.1, figure 7",
    why="chance is 0.75; a third of the way to it from none learned is 0.5",
    low=0.5,
)
def unclipped_fails(runs: Runs) -> Finding:
    """The mean over seeds."""
    return mean_finding(read_errors(runs, clipped=False))


@claim(
    "log₁₀ of the largest rate that solves it clipped, over that not clipped",
    source="Pascanu et al. 2013, §3.2: the step stays near the cliff",
    why="one step of the grid of rates",
    low=0.45,
)
def wider_rates(runs: Runs) -> Finding:
    """The mean over seeds; a seed that no rate solves counts as the grid's lowest."""
    logs = []
    for clipped in (True, False):
        groups = select_trained(runs, clipped)
        if not groups:
            return mean_finding([math.nan])
        best: dict[float, float] = {}
        for rate, group in groups.items():
            for run in group:
                seed = read_setting(run, "seed.base")
                # rates rise, so that the last one that solves it stays
                solved = read_series(run, "error/val")[-1] <= SOLVED
                if solved or seed not in best:
                    best[seed] = math.log10(rate)
        logs.append(best)
    return mean_finding([logs[0][seed] - logs[1][seed] for seed in logs[0]])


def read_norms(run: RunResult) -> np.ndarray:
    """Read the norm of the gradient that the optimizer was given, of every step."""
    # layer by layer, which together are all parameters
    names = [name for name in set(run.history.name) if name.startswith("gradient_flow/norm/")]
    return np.sqrt(sum(read_series(run, name) ** 2 for name in names))


def select_norms(runs: Runs, clipped: bool) -> list[np.ndarray]:
    """Collect the norms of the runs that logged them."""
    looked = [run for run in runs if run.config.diagnostics]
    return [read_norms(r) for r in looked if bool(read_setting(r, "step.clip.norm")) == clipped]


@claim(
    "largest norm of a gradient that the optimizer is given, over the threshold",
    source="Pascanu et al. 2013, algorithm 1",
    why="single precision",
    high=1 + 1e-5,
)
def norm_is_capped(runs: Runs) -> Finding:
    """Of all steps and seeds."""
    return exact_finding(max(float(norms.max()) for norms in select_norms(runs, True)) / NORM)


@claim(
    "not clipped: log₁₀ of the largest norm over the median one",
    source="Pascanu et al. 2013, §2.1 and figure 6: large increases in the norm",
    why="ten times, an order of magnitude",
    low=1.0,
)
def norms_explode(runs: Runs) -> Finding:
    """The mean over seeds."""
    unclipped = select_norms(runs, False)
    return mean_finding([math.log10(norms.max() / np.median(norms)) for norms in unclipped])


def find_steps(runs: Runs) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the steps from the initial weights, clipped and not, of each seed."""
    found: dict[float, dict[tuple[float, bool], np.ndarray]] = {}
    for run in runs:
        if read_setting(run, "trainer.max_steps") == 1:
            kind = read_setting(run, "optimizer.lr"), bool(read_setting(run, "step.clip.norm"))
            found.setdefault(read_setting(run, "seed.base"), {})[kind] = load_last_weights(run)
    # a rate of 0 leaves the initial weights
    return [(w[RATE, True] - w[0.0, False], w[RATE, False] - w[0.0, False]) for w in found.values()]


@claim(
    "one less the cosine between the clipped step and that not clipped",
    source="Pascanu et al. 2013, algorithm 1: the direction is kept",
    why="double precision, of a step of 10⁻⁴ between weights of about 0.1",
    high=1e-8,
)
def direction_is_kept(runs: Runs) -> Finding:
    """The largest over seeds."""
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in find_steps(runs)]
    return exact_finding(max(abs(1 - float(cosine)) for cosine in cosines))


@claim(
    "length of the clipped step, over rate times threshold: farthest from 1",
    source="Pascanu et al. 2013, algorithm 1",
    why="double precision, and 10⁻⁶ of the threshold that torch adds to the norm",
    expected=1.0,
    within=1e-4,
)
def step_is_short(runs: Runs) -> Finding:
    """Over the seeds."""
    ratios = [float(np.linalg.norm(short)) / (RATE * SHORT) for short, _ in find_steps(runs)]
    return exact_finding(max(ratios, key=lambda ratio: abs(ratio - 1)))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the errors over the rate, and the norms over the steps.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2)
    for i, clipped in enumerate((False, True)):
        groups = select_trained(runs, clipped)
        errors = [[100 * read_series(run, "error/val")[-1] for run in g] for g in groups.values()]
        if errors:
            left.plot(list(groups), errors, "o", color=f"C{i}", markersize=4, alpha=0.7)
            left.plot(list(groups), np.mean(errors, 1), color=f"C{i}", linewidth=1.6)
        followed = select_norms(runs, clipped)
        for norms in followed:
            right.plot(np.arange(1, len(norms) + 1), norms, color=f"C{i}", lw=0.7, alpha=0.8)
        if followed:
            name = ("not clipped", "clipped at 1")[i]
            right.text(0.04, 0.93 - 0.07 * i, name, color=f"C{i}", transform=right.transAxes)
    if not left.lines:
        say_not_run(left)
    left.set(xscale="log", xlabel="rate", ylim=(-3, 100), title="validation error, %")
    right.set(yscale="log", xlabel="step", title="norm of the gradient")
    # room for the names above the curves
    right.set_ylim(top=right.get_ylim()[1] * 20)
