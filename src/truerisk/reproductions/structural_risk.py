"""A brake raises the train risk, and lowers the validation risk before too much of it raises it.

The brake is λ of an L2 penalty, dropout's p, the time at which training is stopped (less of it is
more of a brake), mixup's α, or the share that label smoothing takes. Its strength goes from none to
far too much, and risks are those of the last weights, without penalty, mixing or smoothing.

Mixup's validation risk is as low at α = 30, where nearly every share is ½, as at the best α
between: 0.004 [-0.003, 0.011] decades higher. That a large α underfits, as Zhang et al. say of
ImageNet, is not to be seen here. Its range and the length of training are those that were written
down before; others were not tried.

The order in which train risks stand is told by Kendall's τ over all pairs of strengths. The best
strength between the ends is chosen by the other seeds, so that it is not flattered by the choice.
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
    mean_finding,
    read_series,
    read_setting,
    write_grids,
)
from truerisk.verdicts.gallery import say_not_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "J(w) = g(w) + λR(w):   g(w_λ) rises with λ,   f(w_λ) has its minimum inside"
SOURCE = "Vapnik 1998, §6; Goodfellow, Bengio & Courville 2016, Deep Learning, §7"
TOPIC = "Risk and generalization"
COST = "2 min"
QUICK = [
    *("seed=range(3)", "trainer.max_epochs=60", "data.num_train=200", "risk.train_samples=200"),
    *("data.source.num_samples=700", "data.val=500"),
    write_grids(
        {"risk.every": 1},
        {"regularizer": "[l2]", "regularizer.l2.coefficient": [1e-2, 3e-2, 1]},
    ),
]
KEYS = {
    "L2": "regularizer.l2.coefficient",
    "dropout": "regularizer.dropout.p",
    "mixup": "regularizer.mixup.alpha",
    "label smoothing": "loss.label_smoothing",
}
SYMBOLS = {
    **{"L2": "λ", "dropout": "p", "early stopping": "epochs", "mixup": "α"},
    "label smoothing": "",
}
TIMES = (1, 2, 5, 10, 20, 40, 70, 100)
"""Epochs after which training is looked at as if it had been stopped."""


def find_risks(runs: Runs, brake: str, split: str) -> dict[float, np.ndarray]:
    """Read the risks [seeds] by the strength of a brake, the weakest first.

    Args:
        runs: the study's.
        brake: a name of ``KEYS``, or early stopping, whose strengths are times.
        split: ``train`` or ``val``.
    """
    free = [run for run in runs if name_brake(run) is None]
    if brake == "early stopping":
        curves = np.array([read_series(run, f"risk/{split}") for run in free])
        # the first is measured before training
        return {t: curves[:, t] for t in reversed(TIMES) if t < curves.shape[1]}
    found = {0.0: free}
    for run in runs:
        if name_brake(run) == brake:
            found.setdefault(read_setting(run, KEYS[brake]), []).append(run)
    risks = {}
    for strength in sorted(found):
        seeds = sorted(found[strength], key=lambda run: read_setting(run, "seed.base"))
        risks[strength] = np.array([read_series(run, f"risk/{split}")[-1] for run in seeds])
    return risks


def name_brake(run: RunResult) -> str | None:
    """Name the brake that a run has; None of one without."""
    return next((brake for brake, key in KEYS.items() if read_setting(run, key)), None)


def claim_rise(brake: str, source: str) -> Claim:
    """Make the claim that the train risk rises with the strength of a brake."""

    @claim(
        f"{brake}: train risk rises with the strength, Kendall's τ",
        source=source,
        why="three pairs of 36 may stand the wrong way, as the weakest brakes do next to nothing",
        low=0.83,
    )
    def rise(runs: Runs) -> Finding:
        values = np.array(list(find_risks(runs, brake, "train").values()))
        pairs = [np.sign(b - a) for i, a in enumerate(values) for b in values[i + 1 :]]
        # no pair where the quick study lacks the brake
        return mean_finding(np.mean(pairs or [[math.nan]], axis=0).tolist())

    return rise


def claim_inside(brake: str, source: str) -> Claim:
    """Make the claim that the validation risk has its minimum between the ends."""

    @claim(
        f"{brake}: log₁₀ of the validation risk at the better end over that at the best between",
        source=source,
        why="the sign alone",
        low=0.0,
    )
    def inside(runs: Runs) -> Finding:
        logs = np.log10(list(find_risks(runs, brake, "val").values()))
        if len(logs) < 3:
            return mean_finding([math.nan])
        ends = logs[[0, -1]]
        end = ends[ends.mean(1).argmin()]
        gains = []
        for seed in range(logs.shape[1]):
            others = np.delete(logs, seed, axis=1)[1:-1].mean(1)
            gains.append(end[seed] - logs[1:-1][others.argmin(), seed])
        return mean_finding(gains)

    return inside


SHRINKAGE = "Hastie, Tibshirani & Friedman 2009, §2.9 and §7.2"
SRIVASTAVA = "Srivastava et al. 2014, Dropout, §7.3"
STOPPING = "Prechelt 1998, Early Stopping – But When?; Goodfellow et al. 2016, §7.8"
MIXUP = "Zhang et al. 2018, mixup, §3.1: a large α underfits"
SMOOTHING = "Szegedy et al. 2016, §7; Müller, Kornblith & Hinton 2019"
l2_rises, l2_inside = claim_rise("L2", SHRINKAGE), claim_inside("L2", SHRINKAGE)
dropout_rises, dropout_inside = (
    claim_rise("dropout", SRIVASTAVA),
    claim_inside("dropout", SRIVASTAVA),
)
time_rises = claim_rise("early stopping", STOPPING)
time_inside = claim_inside("early stopping", STOPPING)
mixup_rises, mixup_inside = claim_rise("mixup", MIXUP), claim_inside("mixup", MIXUP)
smoothing_rises = claim_rise("label smoothing", SMOOTHING)
smoothing_inside = claim_inside("label smoothing", SMOOTHING)


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw train and validation risk over the strength, a panel a brake.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    brakes = ("L2", "dropout", "early stopping", "mixup", "label smoothing")
    *panels, legend = figure.subplots(2, 3, sharey=True).flat
    for axes, brake in zip(panels, brakes, strict=True):
        for i, split in enumerate(("train", "val")):
            risks = find_risks(runs, brake, split)
            if len(risks) < 2:  # the quick study has not every brake
                continue
            places = np.arange(len(risks))
            values = np.array(list(risks.values()))
            axes.plot(places, values, color=f"C{i}", linewidth=0.6, alpha=0.5)
            axes.plot(places, values.mean(1), "o-", color=f"C{i}", markersize=4, linewidth=1.8)
            # three strengths, as all of them would touch
            shown = [0, len(risks) // 2, len(risks) - 1]
            axes.set_xticks(shown, [f"{list(risks)[i]:g}" for i in shown])
        if not axes.lines:
            say_not_run(axes)
            axes.set_xticks([])
        axes.set(title=": ".join((brake, SYMBOLS[brake])).rstrip(": "))
    legend.axis("off")
    legend.text(0.1, 0.6, "validation risk", color="C1", transform=legend.transAxes)
    legend.text(0.1, 0.4, "train risk", color="C0", transform=legend.transAxes)
