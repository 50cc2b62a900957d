"""Early stopping shrinks: t steps of gradient descent on least squares are nearly ridge at 1/(ηt).

Along the singular vector of X/√n with the singular value s, t steps from 0 go 1 − (1 − 2ηs²)ᵗ of
the way to least squares; ridge goes s²/(s² + λ/2). At λ = 1/(ηt) the first is never less, and at
most 1.3 times as much. The risk is no more than 1.69 times that of ridge, whatever the truth.

The loss is the mean square, so that its curvatures are 2s², and the penalty is ½λ‖w‖².
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    load_last_weights,
    mean_finding,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "wₜ = Σ (1 − (1 − 2ηsᵢ²)ᵗ) uᵢᵀy/(sᵢ√n) vᵢ   ≈   Σ sᵢ²/(sᵢ² + 1/(2ηt)) uᵢᵀy/(sᵢ√n) vᵢ"
SOURCE = "Ali, Kolter & Tibshirani 2019, A Continuous-Time View of Early Stopping for Least Squares"
TOPIC = "Risk and generalization"
COST = "1 min"
QUICK = [
    "seed=range(4)",
    write_grids(
        {"trainer.max_epochs": [10, 100]},
        {
            "optimizer": "newton",
            "optimizer.lr": 1.0,
            "trainer.max_epochs": 1,
            "regularizer": "[l2]",
            "regularizer.l2.coefficient": [10.0, 1.0],
        },
    ),
]


class SampleSpectrum(NamedTuple):
    """The singular value decomposition of a training set."""

    values: np.ndarray
    """s [d], of X/√n"""
    vectors: np.ndarray
    """v [d, d], a column each"""
    targets: np.ndarray
    """uᵀy/√n [d]"""


@cache
def decompose_samples(run: RunResult) -> SampleSpectrum:
    """Draw a run's training samples anew, as its configuration has them, and decompose them."""
    from truerisk.assemble import build_data

    train: Any = build_data(run.config).train
    x, y = train.x.double().numpy(), train.y.double().numpy()
    u, values, vectors = np.linalg.svd(x / len(x) ** 0.5, full_matrices=False)
    return SampleSpectrum(values, vectors.T, (u.T @ y)[:, 0] / len(x) ** 0.5)


def pick_pairs(runs: Runs) -> list[tuple[float, Runs, Runs]]:
    """Pair descent stopped after t steps with ridge at λ = 1/(ηt).

    Args:
        runs: the study's.

    Returns:
        For each t: ηt, and the runs of both, in the order of their seeds.
    """
    pairs = []
    ridges = runs.with_setting("choices.optimizer", "newton")
    by_strength = ridges.grouped_by("regularizer.l2.coefficient")
    for steps, group in (
        runs.with_setting("choices.optimizer", "gd").grouped_by("trainer.max_epochs").items()
    ):
        time = read_setting(group[0], "optimizer.lr") * steps
        (strength,) = (s for s in by_strength if np.isclose(s * time, 1))
        found = [Runs(sort_by_seed(g)) for g in (group, by_strength[strength])]
        pairs.append((time, *found))
    return pairs


def sort_by_seed(runs: Runs) -> list[RunResult]:
    """Sort runs, whose folders come in the order of their names."""
    return sorted(runs, key=lambda run: read_setting(run, "seed.base"))


@claim(
    "wₜ is the spectral filter of least squares: distance over ‖wₜ‖, the largest",
    source="Ali, Kolter & Tibshirani 2019, §2",
    why="rounding in double precision, over a thousand steps that contract",
    high=1e-12,
)
def spectral_filter(runs: Runs) -> Finding:
    """Over all times and training sets."""
    largest = 0.0
    for time, group, _ in pick_pairs(runs):
        for run in group:
            s, vectors, targets = decompose_samples(run)
            lr = read_setting(run, "optimizer.lr")
            share = 1 - (1 - 2 * lr * s**2) ** round(time / lr)
            weights = load_last_weights(run)
            off = weights - vectors @ (share * targets / s)
            largest = max(largest, float(np.linalg.norm(off) / np.linalg.norm(weights)))
    return exact_finding(largest)


@claim(
    "along every singular vector descent over ridge at λ = 1/(ηt): the least",
    source="Ali, Kolter & Tibshirani 2019, lemma 7",
    why="1 − e⁻ˣ ≥ x/(1 + x), and steps of finite length go further; rounding",
    low=1 - 1e-9,
)
def no_less_than_ridge(runs: Runs) -> Finding:
    """Over all times, training sets and singular vectors."""
    return exact_finding(min(compare_coordinates(runs)))


@claim(
    "and the most",
    source="Ali, Kolter & Tibshirani 2019, lemma 7",
    why="1 − e⁻ˣ ≤ 1.2985 x/(1 + x), and up to ηs² ≈ 3 % more, as steps are of finite length",
    high=1.2985 * 1.03,
)
def little_more_than_ridge(runs: Runs) -> Finding:
    """Over all times, training sets and singular vectors."""
    return exact_finding(max(compare_coordinates(runs)))


def compare_coordinates(runs: Runs) -> list[float]:
    """Divide descent's coordinates along the singular vectors by ridge's, for all pairs of runs."""
    ratios: list[float] = []
    for _, group, ridges in pick_pairs(runs):
        for run, ridge in zip(group, ridges, strict=True):
            vectors = decompose_samples(run).vectors
            both = [vectors.T @ load_last_weights(one) for one in (run, ridge)]
            ratios += (both[0] / both[1]).tolist()
    return ratios


@claim(
    "true risk above the noise, over ridge's at λ = 1/(ηt): the largest of all times",
    source="Ali, Kolter & Tibshirani 2019, theorem 1",
    why="their constant for gradient flow; the covariance is I, where this is the error of w",
    high=1.6862,
)
def risk_is_near_ridge(runs: Runs) -> Finding:
    """A ratio of means over training sets, with the interval of its linearization."""
    findings = [
        mean_finding(linearize_ratio(group, ridges)) for _, group, ridges in pick_pairs(runs)
    ]
    return max(findings, key=lambda finding: finding.value)


def read_excess(runs: Runs) -> np.ndarray:
    """Read the true risk above the Bayes risk [runs]."""
    return np.array(
        [run.summary["risk/true"].value - run.summary["risk/bayes"].value for run in runs]
    )


def linearize_ratio(runs: Runs, others: Runs) -> list[float]:
    """Return numbers whose mean is the ratio of mean excess risks, and whose spread is its error.

    Args:
        runs: of descent.
        others: of ridge, on the same training sets.
    """
    above, below = read_excess(runs), read_excess(others)
    ratio = above.mean() / below.mean()
    linear = ratio + (above - ratio * below) / below.mean()
    return [float(value) for value in linear]


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw what is kept along singular vectors, and the risk, over ηt.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    left, right = figure.subplots(1, 2)
    pairs = pick_pairs(runs)
    for i, (_, group, ridges) in enumerate(pairs):
        s, vectors, targets = decompose_samples(group[0])
        for run, mark in ((group[0], "o"), (ridges[0], "x")):
            kept = vectors.T @ load_last_weights(run) / (targets / s)
            left.plot(s**2, kept, mark, color=f"C{i}", markersize=5)
    left.set(xlabel="s²", ylim=(0, 1.03), title="share of least squares kept")
    times = [time for time, *_ in pairs]
    descents = [read_excess(pair[1]).mean() for pair in pairs]
    shrunk = [read_excess(pair[2]).mean() for pair in pairs]
    right.plot(times, descents, "o-", color="C0", label="descent, ηt")
    right.plot(times, shrunk, "x--", color="C1", label="ridge, λ = 1/(ηt)")
    right.set(xscale="log", xlabel="ηt", title="true risk − noise")
    right.legend()
