"""With weight decay a network learns to add long after it knows its training pairs by heart.

An MLP of one hidden layer sees 60 % of all pairs of residues modulo 31, and their sums. Training
accuracy is at 95 % soon; validation accuracy is then near chance, and gets there many times later,
or without weight decay not at all in the same time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    read_metric,
    read_series,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = (
    "a + b mod p;   t(split) = the first epoch with an accuracy of 95 %:   t(val) ≥ 4 t(train)"
)
SOURCE = (
    "Power et al. 2022, Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets"
)
TOPIC = "Risk and generalization"
COST = "2 min"
QUICK = [
    *("seed=range(2)", "optimizer.weight_decay=0.0", "data.source.prime=13", "model.width=64"),
    *("trainer.max_epochs=400", "risk.train_samples=102"),
]
LEARNED = 0.95
"""The accuracy that counts as having learned."""


def read_times(run: RunResult) -> np.ndarray:
    """Read the epochs at which risks were measured [looks]."""
    # an epoch is a step, of the full batch
    return read_metric(run, "error/val").step


def find_time(run: RunResult, split: str) -> float:
    """Find the first epoch at which a split is learned; infinite if it is not.

    Args:
        run: of full batches, an epoch a step.
        split: ``train`` or ``val``.
    """
    learned = np.flatnonzero(1 - read_series(run, f"error/{split}") >= LEARNED)
    if len(learned) == 0:
        return math.inf
    return float(read_times(run)[learned[0]])


@claim(
    "with weight decay: log₄ of the time to learn the validation pairs over that of training",
    source="Power et al. 2022, figure 1",
    why="four times later; fixed beforehand, with the claim",
    low=1.0,
)
def later(runs: Runs) -> Finding:
    """The mean over seeds, not finite if one does not learn them."""
    group = runs.with_setting("optimizer.weight_decay", 1.0)
    pairs = [(find_time(run, "val"), find_time(run, "train")) for run in group]
    if not pairs:  # the quick study is without
        return mean_finding([math.nan])
    # a seed that never gets there is no large number but a claim that fails
    if not np.isfinite(pairs).all():
        return exact_finding(-math.inf)
    return mean_finding([math.log(val / train, 4) for val, train in pairs])


@claim(
    "without: the best validation accuracy, of all seeds and times",
    source="Power et al. 2022, §3.3 and figure 2; as worded",
    why="not learned by the time that it is with weight decay, nor by the end",
    high=LEARNED,
)
def not_without(runs: Runs) -> Finding:
    """The largest."""
    group = runs.with_setting("optimizer.weight_decay", 0.0)
    return exact_finding(max(1 - read_series(run, "error/val").min() for run in group))


@claim(
    "without: the training accuracy at the end, of the worst seed",
    source="Power et al. 2022, figure 1",
    why="what is not learned for want of training would be no evidence",
    low=LEARNED,
)
def trained_without(runs: Runs) -> Finding:
    """The least."""
    group = runs.with_setting("optimizer.weight_decay", 0.0)
    return exact_finding(min(1 - read_series(run, "error/train")[-1] for run in group))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw both accuracies over the epochs, with weight decay and without.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    panels = figure.subplots(1, 2, sharey=True)
    groups = runs.grouped_by("optimizer.weight_decay")
    for axes, decay in zip(panels, (1.0, 0.0), strict=True):
        for run in groups.get(decay, ()):
            # from 1, on a logarithmic axis
            times = np.maximum(read_times(run), 1)
            for i, split in enumerate(("train", "val")):
                accuracy = 100 * (1 - read_series(run, f"error/{split}"))
                axes.plot(times[: len(accuracy)], accuracy, color=f"C{i}", linewidth=1.0)
        axes.axhline(100 * LEARNED, color=axes.xaxis.label.get_color(), lw=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="epoch", ylim=(0, 104))
    panels[0].set_title("accuracy, %: weight decay 1")
    panels[1].set_title("none")
    panels[1].text(0.04, 0.86, "training pairs", color="C0", transform=panels[1].transAxes)
    panels[1].text(0.04, 0.78, "other pairs", color="C1", transform=panels[1].transAxes)
