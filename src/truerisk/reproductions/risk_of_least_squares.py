"""Least squares flatters itself in training by as much as it errs on new samples, and a bit less.

With d Gaussian features, n samples and noise σ the training risk is σ²(1 − d/n) on average, the
true risk σ²(1 + d/(n − d − 1)): what is fitted to the noise counts twice. The covariance of the
features has no part in it.

The true risk of every fit is an integral in closed form, so that all that varies is the training
set. Of 100 of them, seeds 0 to 99, the training risk was 1.011 [0.975, 1.046] of the theory's,
which decides nothing about ± 4 %: the same noise is in all four sizes. So 200 others were drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "E 1/n‖y − Xŵ‖² = σ²(1 − d/n)     E (y − xᵀŵ)² = σ²(1 + d/(n − d − 1))     x ~ N(0, Σ)"
SOURCE = "Hastie, Tibshirani & Friedman 2009, §2.6 and §7.4; Breiman & Freedman 1983"
TOPIC = "Risk and generalization"
COST = "2 min"
QUICK = [
    "seed=range(6)",
    write_grids(
        {"data.num_train": [60, 400]}, {"data.num_train": 60, "data.source.condition": 100.0}
    ),
]
PRECISION = "the interval that is to be had from some hundred training sets is about ± "


def predict_risk(name: str, n: Any, d: float = 20) -> Any:
    """Compute the mean risk for noise of variance 1.

    Args:
        name: ``risk/train`` or ``risk/true``.
        n: samples, a number or many.
        d: features.
    """
    if name == "risk/train":
        return 1 - d / n
    return 1 + d / (n - d - 1)


def read_risks(runs: Runs, name: str, condition: float = 1.0) -> dict[int, np.ndarray]:
    """Read a risk of all runs [seeds], by the number of samples.

    Args:
        runs: the study's.
        name: of the risk.
        condition: the condition number of the features' covariance.
    """
    found = runs.with_setting("data.source.condition", condition)
    return {
        n: np.array([run.summary[name].value for run in group])
        for n, group in found.grouped_by("data.num_train").items()
    }


def compare_risk(runs: Runs, name: str) -> Finding:
    """Average the risk over the theory's, over all n, and over training sets.

    Args:
        runs: the study's.
        name: of the risk.
    """
    ratios = [risks / predict_risk(name, n) for n, risks in read_risks(runs, name).items()]
    # samples of one seed are partly the same at every n: one number a seed
    return mean_finding(np.mean(ratios, axis=0).tolist())


@claim(
    "training risk over σ²(1 − d/n), n = 40, 60, 100, 400",
    source="Hastie, Tibshirani & Friedman 2009, §7.4",
    why=PRECISION + "2 %",
    expected=1.0,
    within=0.04,
)
def training_risk(runs: Runs) -> Finding:
    """The mean over n, and over training sets."""
    return compare_risk(runs, "risk/train")


@claim(
    "true risk over σ²(1 + d/(n − d − 1)), n = 40, 60, 100, 400",
    source="Breiman & Freedman 1983, How Many Variables Should Be Entered …?",
    why=PRECISION + "2 %",
    expected=1.0,
    within=0.04,
)
def true_risk(runs: Runs) -> Finding:
    """The mean over n, and over training sets."""
    return compare_risk(runs, "risk/true")


@claim(
    "whatever the covariance: true risks at condition 1 and 100, same draws; largest difference",
    source="Breiman & Freedman 1983",
    why="samples are in single precision: 6·10⁻⁸, times the root of the condition number, and more",
    high=1e-4,
)
def covariance_has_no_part(runs: Runs) -> Finding:
    """Over all training sets, relative."""
    (n, changed), *_ = read_risks(runs, "risk/true", condition=100.0).items()
    plain = read_risks(runs, "risk/true")[n]
    return exact_finding(float(np.abs(changed / plain - 1).max()))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw both risks over n, beside the theory.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    axes = figure.add_subplot()
    for i, (name, label) in enumerate({"risk/train": "training", "risk/true": "true"}.items()):
        found = read_risks(runs, name)
        grid = np.geomspace(min(found), max(found))
        axes.plot(grid, predict_risk(name, grid), color=f"C{i}", label=label, linewidth=1.4)
        findings = [mean_finding(risks.tolist()) for risks in found.values()]
        low, high = (np.array([abs(f.value - f[k]) for f in findings]) for k in (1, 2))
        means = [f.value for f in findings]
        axes.errorbar(list(found), means, (low, high), fmt="o", color=f"C{i}", capsize=4)
    axes.axhline(1, linestyle=":", linewidth=1.2)
    axes.set(xscale="log", xlabel="samples n", title="risk of least squares, d = 20, σ = 1")
    axes.set_xticks(list(found), [str(n) for n in found])
    axes.minorticks_off()
    axes.legend()
