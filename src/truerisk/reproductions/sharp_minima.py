"""At one train risk large batches are sharper; scaling layers changes that, not the function.

An MLP is trained by Adam on batches of 20 and of 400 out of 4000 samples, and both are compared at
a train risk of 0.02, on the line between the logarithms at the last look above it and at the first
below, so that neither is sharper for having been trained less. Sharpness is Keskar et al.'s, the
largest rise of J in a box with ε = 10⁻³ around the weights; and the trace of the Hessian. With the
first layer times 10 and the second over 10, ReLU gives the same outputs, and both measures are
others: so neither tells by itself what generalizes.

On seeds 0 to 5 small batches had 60 epochs, in which none came to that risk; at the last look log₁₀
of the ε-sharpnesses' ratio was 0.081 [−0.150, 0.312], of the traces' 0.014 [−0.110, 0.138]: both
inconclusive. On seeds 10 to 15 they have 100. At first those were judged at the first look below
0.02, at risks down to 0.0097, where sharpness is less: 0.322 [0.204, 0.440] and 0.322 [0.199,
0.445]. What is judged now are the same runs at 0.02, which no new seeds have confirmed. They are
looked at every 20 and 80 epochs; looks every 6 and 20 gave 0.258 [0.135, 0.381] and 0.240 [0.215,
0.265].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = (
    "100 (max J(w + y) − J(w))/(1 + J(w)),  |yᵢ| ≤ ε(|wᵢ| + 1);   f(x; αw₁, w₂/α) = f(x; w₁, w₂)"
)
SOURCE = (
    "Keskar et al. 2017, On Large-Batch Training; Dinh et al. 2017, Sharp Minima Can Generalize"
)
TOPIC = "Risk and generalization"
COST = "3 min"
QUICK = [
    *("seed=range(2)", "data.val=4000", "risk.train_samples=500", "data.num_train=500"),
    *("diagnostics.flatness.iterations=3", "diagnostics.flatness.probes=4"),
    write_grids(
        {
            **{"data.batch_size": 500, "trainer.max_epochs": 20, "risk.every": 10},
            **{"optimizer.lr": 0.01, "diagnostics.flatness.every.epochs": 10},
        },
    ),
]
SOLVED = 0.02
"""The train risk at which runs are compared."""


def find_look(run: RunResult) -> int | None:
    """Find the first look with a train risk below ``SOLVED``; None if there is none."""
    solved = np.flatnonzero(read_series(run, "risk/train") < SOLVED)
    # risks are measured at the steps of the looks
    return int(solved[0]) if len(solved) else None


def read_when_solved(run: RunResult, name: str) -> float:
    """Read a measure at the train risk ``SOLVED``, between looks; nan if that was not reached."""
    look = find_look(run)
    if look is None:
        return math.nan
    # the train risk of small batches may fall to a fraction from one look to the next
    between = slice(max(look - 1, 0), look + 1)
    risks, values = read_series(run, "risk/train")[between], read_series(run, name)[between]
    # np.interp wants what rises: the later look is the lower risk
    return float(np.exp(np.interp(math.log(SOLVED), np.log(risks[::-1]), np.log(values[::-1]))))


def read_look(runs: Runs, name: str) -> np.ndarray:
    """Read what was logged under a name when the train risk was reached [seeds]."""
    seeds = runs.grouped_by("seed.base").values()
    return np.array([read_when_solved(seed.only_run, name) for seed in seeds])


def small_and_large(runs: Runs, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read what was logged at the end on small batches, and on large ones, by seed."""
    groups = runs.grouped_by("data.batch_size")
    return read_look(groups[min(groups)], name), read_look(groups[max(groups)], name)


def claim_sharper(measure: str, name: str) -> Claim:
    """Make the claim that a measure is larger where batches were."""

    @claim(
        f"{name}: log₁₀ of that of large batches over that of small ones",
        source="Keskar et al. 2017, table 3 and §2.2",
        why="the sign alone, as the sizes depend on the network",
        low=0.0,
    )
    def sharper(runs: Runs) -> Finding:
        small, large = small_and_large(runs, f"flatness/{measure}")
        if len(runs.grouped_by("data.batch_size")) < 2:  # the quick study has one size
            return mean_finding([math.nan])
        return mean_finding(np.log10(large / small).tolist())

    return sharper


box_is_sharper = claim_sharper("box", "ε-sharpness")
trace_is_larger = claim_sharper("trace", "trace of the Hessian")


@claim(
    "validation error of large batches, less that of small ones",
    source="Keskar et al. 2017, table 2",
    why="the sign alone",
    low=0.0,
)
def generalizes_worse(runs: Runs) -> Finding:
    """The mean over seeds, at the same train risk."""
    small, large = small_and_large(runs, "error/val")
    if len(runs.grouped_by("data.batch_size")) < 2:
        return mean_finding([math.nan])
    return mean_finding((large - small).tolist())


@claim(
    "layers scaled by 10 and 1/10: largest change of an output, over the largest output",
    source="Dinh et al. 2017, §3",
    why="single precision, 6·10⁻⁸ an operation, over some hundred terms",
    high=1e-5,
)
def same_function(runs: Runs) -> Finding:
    """Of all looks."""
    return exact_finding(max(read_series(run, "flatness/rescaled/change").max() for run in runs))


@claim(
    "and the trace of the Hessian, over that before: the least",
    source="Dinh et al. 2017, theorem 4",
    why="10² times the second layer's part of it, which is taken to be a tenth or more",
    low=10.0,
)
def another_sharpness(runs: Runs) -> Finding:
    """Of all runs, at the train risk."""
    ratios = read_ratio(runs, "rescaled/trace", "trace")
    return exact_finding(ratios.min())


def read_ratio(runs: Runs, upper: str, lower: str) -> np.ndarray:
    """Read the ratios of two measures in all runs, at the train risk."""
    return np.array(
        [
            read_when_solved(run, f"flatness/{upper}") / read_when_solved(run, f"flatness/{lower}")
            for run in runs
        ]
    )


@claim(
    "small batches' minima, scaled, are sharper than large batches' are: log₁₀ of ε-sharpnesses",
    source="Dinh et al. 2017, §5",
    why="the sign alone",
    low=0.0,
)
def order_is_turned(runs: Runs) -> Finding:
    """The mean over seeds."""
    small, _ = small_and_large(runs, "flatness/rescaled/box")
    _, large = small_and_large(runs, "flatness/box")
    return mean_finding(np.log10(small / large).tolist())


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw ε-sharpness over the train risk, and what scaling layers makes of it.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    ink = left.xaxis.label.get_color()
    groups = runs.grouped_by("data.batch_size")
    for i, (m, group) in enumerate(groups.items()):
        for run in group:
            risks, sharpness = read_series(run, "risk/train"), read_series(run, "flatness/box")
            look = find_look(run)
            # what comes after is not compared
            n = len(sharpness) if look is None else look + 1
            left.plot(risks[:n], sharpness[:n], color=f"C{i}", linewidth=0.8, alpha=0.7)
            ends = [read_when_solved(run, f"flatness/{name}") for name in ("box", "rescaled/box")]
            left.plot(SOLVED, ends[0], "o", color=f"C{i}", markersize=5)
            right.plot([0, 1], ends, "o-", color=f"C{i}", markersize=5, linewidth=0.8)
        style = {"color": f"C{i}", "transform": left.transAxes, "ha": "right"}
        left.text(0.65, 0.15 - 0.09 * i, f"batches of {m}", **style)
    left.axvline(SOLVED, color=ink, linewidth=0.8, linestyle=":")
    left.set(xscale="log", yscale="log", xlabel="train risk", title="ε-sharpness, %, in training")
    left.invert_xaxis()
    right.set(yscale="log", xlim=(-0.4, 1.4), title="the same functions")
    right.set_xticks([0, 1], ["as trained", "layers scaled"], color=ink)
