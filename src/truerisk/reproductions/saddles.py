"""Descent stays near a saddle as long as log(1/distance); momentum leaves sooner, and Newton first.

On x² − y² from (1, δ), x dies out and y grows by a factor a step: 1 + 2η with gradient descent, the
larger root of z² − (1 + β + 2η) z + β with heavy ball, and 2 with saddle-free Newton, whose step is
as long as the distance whatever the curvature. So the steps until y is 1 are log(1/δ) over the
factor's logarithm. From the axis itself, δ = 0, descent ends at the saddle, unless it is perturbed:
with normal noise of scale σ in the gradient, y after t steps is aᵗ S, a = 1 + 2η, where S has the
variance η²σ²/(a² − 1).

At the critical points of test functions, which are known, the kind is told by the second-order
conditions: minima, maxima, saddles, and the monkey saddle, whose Hessian vanishes. In a Gaussian
field half of them are saddles in two dimensions, and nearly all in ten: the share of minima, half
in one dimension, halves with about each more, here up to four. (The 150 fields in two dimensions
had been seen when that was claimed, those in three and four had not.) A field is drawn on the
condition that it has no slope at the origin, and counts |det ∇²f| times, which makes the origin a
critical point as any in a given region is (Kac and Rice).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Claim,
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    read_series,
    read_setting,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "y ← (1 + 2η) y:   t = log(1/δ) / log(1 + 2η);   heavy ball: z² = (1 + β + 2η) z − β"
SOURCE = "Dauphin et al. 2014, Identifying and Attacking the Saddle Point Problem; Lee et al. 2016"
TOPIC = "Descent"
COST = "3 min"
QUICK = [
    "hydra.sweeper.grids=["
    "{model.start:'[1.0,1e-2],[1.0,1e-5],[1.0,0.0]',trainer.max_epochs:130},"
    "{model.start:'[1.0,1e-5]',optimizer:momentum,optimizer.lr:0.05,optimizer.momentum:0.9,"
    "trainer.max_epochs:60},"
    "{model.start:'[1.0,1e-5]',optimizer:newton,optimizer.lr:1.0,optimizer.saddle_free:true,"
    "trainer.max_epochs:25},"
    "{diagnostics:'[critical_point]',optimizer.lr:0.0,trainer.max_epochs:1,"
    "model:'saddle,monkey_saddle',model.start:'[0.0,0.0]'},"
    "{diagnostics:'[critical_point]',optimizer.lr:0.0,trainer.max_epochs:1,"
    "model:gaussian_field,model.level:true,model.dimension:10,model.field:'range(3)'}]"
]
NAMES = {"gd": "gradient descent", "momentum": "heavy ball", "newton": "saddle-free Newton"}
KINDS = {
    **{("saddle", 0.0): "saddle", ("monkey_saddle", 0.0): "degenerate"},
    **{("paraboloid", 0.0): "minimum", ("rosenbrock", 1.0): "minimum"},
    **{("cubic", -1.0): "minimum", ("cubic", 1.0): "maximum"},
}
"""What a critical point is, by function and first coordinate, where that tells it."""


def escapes(runs: Runs, optimizer: str) -> dict[float, RunResult]:
    """Pick a method's runs from near the saddle, by δ, the largest first.

    Args:
        runs: the study's.
        optimizer: the option's name.
    """
    chosen = runs.with_settings({"choices.model": "saddle", "choices.optimizer": optimizer})
    by_start = {read_setting(run, "model.start")[1]: run for run in chosen}
    return {delta: by_start[delta] for delta in sorted(by_start, reverse=True) if delta}


def count_steps(run: RunResult) -> int:
    """Count the steps until y² − x² is 1."""
    return int(np.flatnonzero(read_series(run, "objective") <= -1)[0])


def predict_factor(run: RunResult) -> float:
    """Compute the factor that y grows by in a step, in the long run."""
    if read_setting(run, "choices.optimizer") == "newton":
        return 2.0
    half = (1 + (read_setting(run, "optimizer.momentum") or 0.0) + 2 * run.config.optimizer.lr) / 2
    return half + math.sqrt(half**2 - (read_setting(run, "optimizer.momentum") or 0.0))


@claim(
    "gradient descent: steps per log(1/δ), times log(1 + 2η)",
    source="Lee et al. 2016, §2; Dauphin et al. 2014, §4",
    why="steps are whole: one of 145, over six decades of δ",
    expected=1.0,
    within=0.01,
)
def stalls_as_log(runs: Runs) -> Finding:
    """By least squares over δ."""
    group = escapes(runs, "gd")
    steps = [count_steps(run) for run in group.values()]
    slope = np.polyfit(-np.log(list(group)), steps, 1)[0]
    return exact_finding(slope * math.log(predict_factor(next(iter(group.values())))))


@claim(
    "from the axis it never leaves: |J| at the end",
    source="Lee et al. 2016, §2",
    why="x² has fallen by 0.9² a step, to less than this",
    high=1e-10,
)
def stays_on_the_axis(runs: Runs) -> Finding:
    """Of the run from δ = 0."""
    run = runs.with_settings({"model.start": (1.0, 0.0), "choices.optimizer": "gd"}).only_run
    return exact_finding(abs(float(read_series(run, "objective")[-1])))


def claim_factor(optimizer: str, source: str) -> Claim:
    """Make the claim on the factor that y grows by in a method's last step."""

    @claim(
        f"{NAMES[optimizer]}: growth of y in the last step, over the predicted",
        source=source,
        why="what is left of x, and of heavy ball's other root",
        expected=1.0,
        within=1e-6,
    )
    def factor(runs: Runs) -> Finding:
        worst = 1.0
        for run in escapes(runs, optimizer).values():
            values = read_series(run, "objective")
            # J = −y² where x has died out
            ratio = math.sqrt(values[-1] / values[-2]) / predict_factor(run)
            worst = max(worst, ratio, key=lambda ratio: abs(ratio - 1))
        return exact_finding(worst)

    return factor


momentum_grows = claim_factor("momentum", "O'Neill & Wright 2019, §3")
newton_grows = claim_factor("newton", "Dauphin et al. 2014, §6")


@claim(
    "from the axis with noise σ: steps until |y| is 1, over log(1/|S|) / log a + ½ expected",
    source="Ge et al. 2015, §2; Jin et al. 2017",
    why="log|S| spreads by 1.1, 12 steps of 103: twice the interval of 12 runs",
    expected=1.0,
    within=0.15,
)
def noise_leaves(runs: Runs) -> Finding:
    """The mean over seeds, in each of which the noise is another."""
    # told by the setting, as optimizer=custom has no name of its own
    noisy = [run for run in runs if read_setting(run, "optimizer.noise") is not None]
    if not noisy:
        return mean_finding([])
    config = noisy[0].config.optimizer
    factor = 1 + 2 * config.lr
    # E log|N(0, 1)| = −(γ + log 2)/2; half a step, as steps are whole
    size = math.log(config.lr * config.noise) - math.log(factor**2 - 1) / 2
    mean = (np.euler_gamma + math.log(2)) / 2 - size
    expected = mean / math.log(factor) + 0.5
    return mean_finding([count_steps(run) / expected for run in noisy])


@claim(
    "Newton's steps to leave over heavy ball's, and heavy ball's over descent's: the larger ratio",
    source="Dauphin et al. 2014, §4 and §6",
    why="the order alone",
    high=1.0,
)
def order_of_leaving(runs: Runs) -> Finding:
    """From the smallest δ, where the stay is longest."""
    descent, ball, newton = (count_steps(list(escapes(runs, name).values())[-1]) for name in NAMES)
    return exact_finding(max(newton / ball, ball / descent))


def name_kind(run: RunResult) -> str:
    """Name what a run told of the point it stands at."""
    kinds = ("minimum", "maximum", "saddle", "degenerate", "not_stationary")
    return next(kind for kind in kinds if read_series(run, f"critical_point/{kind}")[-1] == 1)


def known_kind(run: RunResult) -> str:
    """Look up what the point is: by its function, and where that has several, by its place."""
    model, start = read_setting(run, "choices.model"), read_setting(run, "model.start")
    if (model, start[0]) in KINDS:
        return KINDS[model, start[0]]
    if model == "styblinski_tang":
        # between its two valleys, 0.16, each variable has a maximum
        tops = {abs(coordinate - 0.157) < 0.01 for coordinate in start}
        return {(True,): "maximum", (False,): "minimum"}.get(tuple(tops), "saddle")
    if model == "sine_product":
        # J = sin x sin y is 0 at its saddles
        value = math.sin(start[0]) * math.sin(start[1])
        return {0: "saddle", 1: "maximum", -1: "minimum"}[round(value)]
    # Himmelblau's: 0 at the minima; the maximum is in the middle
    x, y = start
    if abs((x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2) < 1e-20:
        return "minimum"
    return {True: "maximum", False: "saddle"}[abs(x + 0.27) < 0.01]


@claim(
    "critical points whose kind is told right, as a share",
    source="Nocedal & Wright 2006, §2.1; Himmelblau 1972",
    why="each of them",
    expected=1.0,
    within=0.0,
)
def kinds_are_right(runs: Runs) -> Finding:
    """Of all runs that stand at one."""
    points = [run for run in runs if read_setting(run, "diagnostics.critical_point") is not None]
    # what these are is not known beforehand
    points = [run for run in points if read_setting(run, "choices.model") != "gaussian_field"]
    return exact_finding(float(np.mean([name_kind(run) == known_kind(run) for run in points])))


def share_kinds(runs: Runs, dimension: int, *kinds: str) -> list[float]:
    """Estimate the share of some kinds among the critical points of a Gaussian field.

    Args:
        runs: the study's.
        dimension: of the field.
        kinds: their names.

    Returns:
        A number a field, whose mean is the share and whose spread is that of its linearization.
    """
    import torch

    fields = runs.with_settings({"choices.model": "gaussian_field", "model.dimension": dimension})
    counted = np.array([name_kind(run) in kinds for run in fields], dtype=float)
    models: list[Any] = [run.model for run in fields]
    # of the whole matrix, as the diagnostic keeps only its extreme eigenvalues
    hessians = [torch.autograd.functional.hessian(m.value, m.w.detach()) for m in models]
    weight = np.array([float(torch.linalg.det(h).abs()) for h in hessians])
    if not len(weight):
        return []
    share = float((weight * counted).sum() / weight.sum())
    return list(share + weight / weight.mean() * (counted - share))


@claim(
    "share of saddles among the critical points of a Gaussian field, d = 2",
    source="Longuet-Higgins 1957; Bray & Dean 2007",
    why="saddles are as many as minima and maxima; twice the interval of 150 fields",
    expected=0.5,
    within=0.25,
)
def half_are_saddles(runs: Runs) -> Finding:
    """Over fields."""
    return mean_finding(share_kinds(runs, 2, "saddle"))


@claim(
    "d = 10",
    source="Dauphin et al. 2014, §2; Bray & Dean 2007",
    why="0.9987, by 200,000 random matrices of the Hessian's law",
    low=0.99,
)
def most_are_saddles(runs: Runs) -> Finding:
    """Over fields."""
    return mean_finding(share_kinds(runs, 10, "saddle"))


@claim(
    "log₂ of the share of minima, for each dimension beyond the first, d = 2, 3, 4",
    source="Bray & Dean 2007",
    why="−1.02, by 400,000 random matrices of the Hessian's law; twice the interval of 550 fields",
    expected=-1.0,
    within=0.5,
)
def minima_grow_rare(runs: Runs) -> Finding:
    """By weighted least squares through a half at d = 1, where minima and maxima alternate."""
    total, information = 0.0, 0.0
    for d in (2, 3, 4):
        # maxima are as many, and tell as much
        values = np.array(share_kinds(runs, d, "minimum", "maximum"))
        if not values.any():  # few fields may have no such point at all
            return mean_finding([])
        error = values.std(ddof=1) / math.sqrt(len(values)) / values.mean() / math.log(2)
        # few that are all alike are no proof that there is no other
        error = max(error, 1 / len(values))
        # the share of both is twice that of one
        total += (d - 1) * math.log2(values.mean()) / error**2
        information += (d - 1) ** 2 / error**2
    slope, half = total / information, 1.96 / math.sqrt(information)
    return Finding(slope, slope - half, slope + half)


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the distance from the saddle's axis over the steps, the steps over δ, and the fields.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    panels = figure.subplot_mosaic([["left", "right"], ["fields", "fields"]], height_ratios=(3, 2))
    left, right, bottom = (panels[name] for name in ("left", "right", "fields"))
    for i, optimizer in enumerate(NAMES):
        group = escapes(runs, optimizer)
        for run in group.values():
            values = read_series(run, "objective")[: count_steps(run) + 1]
            below = np.flatnonzero(values < 0)
            left.plot(below, np.sqrt(-values[below]), color=f"C{i}", linewidth=1.2)
        steps = [count_steps(run) for run in group.values()]
        right.plot(list(group), steps, "o", color=f"C{i}")
        rate = math.log(predict_factor(next(iter(group.values()))))
        ends = np.array([max(group), min(group)])
        right.plot(ends, steps[0] + np.log(max(group) / ends) / rate, color=f"C{i}", lw=1.2)
    for i, name in enumerate(NAMES.values()):
        place = (0.97, 0.93 - 0.08 * i)
        right.text(*place, name, color=f"C{i}", ha="right", transform=right.transAxes)
    left.set(yscale="log", xlabel="step", title="distance √(y² − x²)")
    right.set(xscale="log", xlabel="δ", title="steps to leave;  – log(1/δ) / rate")
    # but for the first by random matrices, as there is no closed form
    for row, (dimension, expected) in enumerate({2: 0.5, 3: 0.751, 4: 0.881, 10: 0.9987}.items()):
        found = mean_finding(share_kinds(runs, dimension, "saddle"))
        if math.isnan(found.value):  # the quick study has only the last
            continue
        bottom.plot([expected] * 2, [row - 0.35, row + 0.35], color="0.5")
        bottom.plot([found.low, found.high], [row, row], color=f"C{row}")
        bottom.plot(found.value, row, "o", color=f"C{row}")
        bottom.text(0.03, row, f"d = {dimension}", color=f"C{row}", va="center")
    bottom.set(xlim=(0, 1.03), ylim=(3.6, -0.6), yticks=[])
    bottom.set(title="share of saddles in a Gaussian field;  | theory")
