"""On MNIST-1D, logistic regression is right on 32 % of the test set, an MLP 68, a CNN 94, a GRU 91.

By the recipes of the paper's code: 6000 steps of Adam on batches of 100, here for five seeds. The
weights are those with the lowest validation risk, measured on a tenth of the training set that is
held out for it; the paper tests the last weights, trained on all of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from truerisk.verdicts import Claim, Finding, Runs, claim, mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "accuracy = 1 − 1/n Σ 1[argmax f(xᵢ) ≠ yᵢ],  n = 1000 test samples"
SOURCE = "Greydanus & Kobak 2020, Scaling Down Deep Learning with MNIST-1D, figure 2"
COST = "20 runs of 6000 steps"
QUICK = ["model=linear", "seed=range(5)", "trainer.max_steps=1000"]
NAMES = {"linear": "logistic regression", "mlp_residual": "MLP", "cnn1d": "CNN", "gru": "GRU"}
PUBLISHED = {"linear": 32.0, "mlp_residual": 68.0, "cnn1d": 94.0, "gru": 91.0}


def accuracies(runs: Runs, model: str) -> list[float]:
    """Test accuracy in per cent, a seed a number."""
    found = runs.only("choices.model", model)
    return [100 * (1 - run.summary["error/test"].value) for run in found]


def reached(model: str) -> Claim:
    """The claim on one model: its mean accuracy over seeds.

    The published number is one run's, to a per cent, on a test set of 1000.
    """
    share = PUBLISHED[model] / 100
    tolerance = 0.5 + 200 * math.sqrt(share * (1 - share) / 1000)

    @claim(
        f"{NAMES[model]}: test accuracy, %",
        source=SOURCE,
        why="two standard errors of an accuracy on 1000 samples, and rounding to a per cent",
        expected=PUBLISHED[model],
        within=round(tolerance, 1),
    )
    def measured(runs: Runs) -> Finding:
        return mean(accuracies(runs, model))

    return measured


logistic_regression = reached("linear")
mlp = reached("mlp_residual")
cnn = reached("cnn1d")
gru = reached("gru")


def draw(runs: Runs, figure: Figure) -> None:
    """Every seed's accuracy beside the published one."""
    axes = figure.add_subplot()
    ink = axes.xaxis.label.get_color()
    for row, model in enumerate(NAMES):
        found = accuracies(runs, model)
        shift = np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else np.zeros(len(found))
        axes.plot(found, row + shift, "o", color="C0", markersize=7)
        axes.plot([PUBLISHED[model]] * 2, [row - 0.3, row + 0.3], color="C1")
    axes.set_yticks(range(len(NAMES)), list(NAMES.values()), color=ink)
    axes.set(xlim=(0, 100), ylim=(len(NAMES) - 0.5, -0.9), xlabel="test accuracy, %")
    axes.grid(axis="y", visible=False)
    axes.text(PUBLISHED["linear"], -0.45, "published", color="C1", ha="center")
    axes.text(PUBLISHED["linear"] + 16, 0, "● one seed each", color="C0", va="center")
