"""The batch gradient is unbiased, and its variance falls as one over the batch size.

Between independent batches the variance is tr Σ/m. Batches drawn without replacement from N samples
vary less, by (N − m)/(N − 1). The noise scale tr Σ/‖∇g‖², estimated from squared norms at two batch
sizes alone, agrees with that from the gradient of every sample.

The gradients of batches are read from the weights before and after one step of length 1.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import (
    Finding,
    Runs,
    claim,
    exact_finding,
    load_last_weights,
    mean_finding,
    read_series,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "E ĝₘ = ∇g,   E‖ĝₘ − ∇g‖² = tr Σ/m · (N − m)/(N − 1)   (with replacement: tr Σ/m)"
SOURCE = "McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training"
TOPIC = "Descent"
COST = "1 min"
QUICK = [
    write_grids(
        {"optimizer.lr": 0.0, "data.batch_size": "full"},
        {"data.batch_size": "full", "diagnostics": "[gradient_noise]"},
        {"data.batch_size": [64, 128], "seed.order": range(16)},
        {"data.batch_size": 32, "diagnostics": "[gradient_noise]", "seed": range(1, 9)},
    )
]
DIMENSION = 50
"""Directions over which the noise spreads: a squared deviation scatters by √(2/50) of its mean."""


def step_gradient(run: RunResult, start: np.ndarray) -> np.ndarray:
    """Compute the gradient that a step of length 1 went down.

    Args:
        run: of one step.
        start: the weights before it [d].
    """
    return start - load_last_weights(run)


@cache
def whole_gradient(runs: Runs) -> tuple[np.ndarray, np.ndarray, float]:
    """Read the weights at the start, ∇g of the N samples, and S² = 1/(N−1) Σ‖gᵢ − ∇g‖²."""
    # a run with step length 0 keeps the initial weights in its checkpoint
    full = runs.with_setting("data.batch_size", "full")
    start = load_last_weights(full.with_setting("optimizer.lr", 0.0).only_run)
    run = full.with_setting("optimizer.lr", 1.0).only_run
    variance = read_series(run, "gradient_noise/variance")[0]  # at the weights before the step
    return start, step_gradient(run, start), float(variance)


@cache
def gradient_deviations(runs: Runs) -> dict[int, np.ndarray]:
    """Compute ĝₘ − ∇g [draws, weights] by batch size, of runs that start at the same weights."""
    start, whole, _ = whole_gradient(runs)
    drawn = runs.with_settings({"seed.base": 0, "diagnostics.gradient_noise": None})
    groups = {m: drawn.with_setting("data.batch_size", m) for m in (32, 64, 128)}
    return {
        m: np.stack([step_gradient(run, start) - whole for run in group])
        for m, group in groups.items()
        if len(group)
    }


def count_samples(runs: Runs) -> int:
    """Count the training samples, N."""
    return int(runs[0].config.data.num_train)


@claim(
    "unbiased: the squared error of the mean of many batch gradients, over its variance",
    source="Robbins & Monro 1951",
    why="it scatters by √(2/50) = 0.2 around 1; 2 is five times that",
    high=2.0,
)
def unbiased(runs: Runs) -> Finding:
    """The batch size for which it is largest."""
    ratios = []
    for deviations in gradient_deviations(runs).values():
        # of the mean of many draws: the variance of one over their number
        variance = deviations.var(axis=0, ddof=1).sum() / len(deviations)
        ratios.append(float((deviations.mean(0) ** 2).sum() / variance))
    return exact_finding(max(ratios))


@claim(
    "variance between independent batches falls as 1/m: log–log slope",
    source="McCandlish et al. 2018, §2.2",
    why="fixed beforehand, with the claim",
    expected=-1.0,
    within=0.05,
)
def slope(runs: Runs) -> Finding:
    """Over m = 1 … 32, for groups of the 256 samples; a seed a slope."""
    return mean_finding([_fit_slope(run) for run in runs_on_other_data(runs)])


def runs_on_other_data(runs: Runs) -> list[RunResult]:
    """Pick the runs on other data, in which gradients were looked at."""
    measured = {"data.batch_size": 32, "diagnostics.gradient_noise.samples": 256}
    return list(runs.with_settings(measured))


def group_variances(run: RunResult) -> dict[int, float]:
    """Read the variance between groups of m samples, by m."""
    return {m: float(read_series(run, f"gradient_noise/law/{m}")[0]) for m in (1, 2, 4, 8, 16, 32)}


def _fit_slope(run: RunResult) -> float:
    variances = group_variances(run)
    return float(np.polyfit(np.log(list(variances)), np.log(list(variances.values())), 1)[0])


@claim(
    "without replacement: variance over that of tr Σ/m · (N−m)/(N−1)",
    source="Cochran 1977, Sampling Techniques, §2.5",
    why="without the factor it would be at least 4/3 on average; a quarter of that way",
    expected=1.0,
    within=0.1,
)
def finite_population(runs: Runs) -> Finding:
    """The mean of ‖ĝₘ − ∇g‖² over its expectation, S²/m · (1 − m/N).

    A draw is a random order, in which the smaller batches are the beginnings of the larger ones:
    it counts once, with its mean over them.
    """
    _, _, variance = whole_gradient(runs)
    # S² has N − 1 in its denominator, so (N − m)/(N − 1) of tr Σ is 1 − m/N of it
    n, ratios = count_samples(runs), []
    for m, deviations in gradient_deviations(runs).items():
        ratios.append((deviations**2).sum(1) / (variance / m * (1 - m / n)))
    # a draw counts once: its batch sizes share samples
    return mean_finding(np.mean(ratios, axis=0))


@claim(
    "noise scale from two batch sizes over that from every sample",
    source="McCandlish et al. 2018, appendix A.1",
    why="32 samples' squared norm scatters by some 0.2 around its mean; averaged over seeds",
    expected=1.0,
    within=0.2,
)
def two_batches(runs: Runs) -> Finding:
    """The mean over seeds."""
    # both at the same weights of the same run, so the ratio has no other cause
    names = ("gradient_noise/two_batch", "gradient_noise/noise_scale")
    scales = [
        [float(read_series(run, name)[0]) for name in names] for run in runs_on_other_data(runs)
    ]
    return mean_finding([two / every for two, every in scales])


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the variance over the batch size: both laws, and what was measured.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    axes = figure.add_subplot()
    _, _, variance = whole_gradient(runs)
    n, m = count_samples(runs), np.geomspace(1, 250, 400)
    axes.plot(m, 1 / m, color="C0", linewidth=1.4)
    axes.plot(m, 1 / m * (n - m) / (n - 1), color="C1", linewidth=1.4, linestyle="--")
    between = [group_variances(run) for run in runs_on_other_data(runs)]
    sizes = list(between[0])
    axes.plot(sizes, [np.mean([b[k] / b[1] for b in between]) for k in sizes], "o", color="C0")
    deviations = gradient_deviations(runs)
    drawn = [(d**2).sum(1).mean() / variance for d in deviations.values()]
    axes.plot(list(deviations), drawn, "s", color="C1")
    axes.set(xscale="log", yscale="log", xlabel="batch size m", ylim=(1e-4, 2))
    axes.set_title("variance of the batch gradient, over that of one sample's")
    axes.text(9, 0.2, "independent: 1/m", color="C0")
    axes.text(60, 0.003, f"from {n} samples,\nwithout replacement:\n1/m · (N−m)/(N−1)", color="C1",
              ha="right", va="top")  # fmt: skip
