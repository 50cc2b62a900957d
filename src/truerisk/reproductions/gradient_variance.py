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
from truerisk.verdicts import Finding, Runs, claim, exactly, last_weights, mean, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "E ĝₘ = ∇g,   E‖ĝₘ − ∇g‖² = tr Σ/m · (N − m)/(N − 1)   (with replacement: tr Σ/m)"
SOURCE = "McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training"
COST = "1 min"
QUICK = [
    "hydra.sweeper.grids=[{optimizer.lr:0.0,data.batch_size:full},"
    "{data.batch_size:full,diagnostics:'[gradient_noise]'},"
    "{data.batch_size:'64,128',seed.order:'range(16)'},"
    "{data.batch_size:32,diagnostics:'[gradient_noise]',seed:'range(1,9)'}]",
]
DIMENSION = 50
"""Directions over which the noise spreads: a squared deviation scatters by √(2/50) of its mean."""


def gradient(run: RunResult, start: np.ndarray) -> np.ndarray:
    """The gradient that a step of length 1 went down."""
    return start - last_weights(run)


@cache
def exact(runs: Runs) -> tuple[np.ndarray, np.ndarray, float]:
    """The weights at the start, the gradient of the N samples, and S² = 1/(N−1) Σ‖gᵢ − ∇g‖²."""
    full = runs.only("data.batch_size", "full")
    start = last_weights(full.only("optimizer.lr", 0.0).one)
    run = full.only("optimizer.lr", 1.0).one
    variance = series(run, "gradient_noise/variance")[0]  # at the weights before the step
    return start, gradient(run, start), float(variance)


@cache
def deviations(runs: Runs) -> dict[int, np.ndarray]:
    """ĝₘ − ∇g [draws, weights] for every batch size, of the runs that start at the same weights."""
    start, whole, _ = exact(runs)
    drawn = runs.only("seed.base", 0).only("diagnostics.gradient_noise", None)
    groups = {m: drawn.only("data.batch_size", m) for m in (32, 64, 128)}
    return {
        m: np.stack([gradient(run, start) - whole for run in group])
        for m, group in groups.items()
        if len(group)
    }


def samples(runs: Runs) -> int:
    """N."""
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
    for found in deviations(runs).values():
        variance = found.var(axis=0, ddof=1).sum() / len(found)
        ratios.append(float((found.mean(0) ** 2).sum() / variance))
    return exactly(max(ratios))


@claim(
    "variance between independent batches falls as 1/m: log–log slope",
    source="McCandlish et al. 2018, §2.2",
    why="fixed beforehand, with the claim",
    expected=-1.0,
    within=0.05,
)
def slope(runs: Runs) -> Finding:
    """Over m = 1 … 32, for groups of the 256 samples; a seed a slope."""
    return mean([_slope(run) for run in noises(runs)])


def noises(runs: Runs) -> list[RunResult]:
    """The runs on other data, with their gradients looked at."""
    return list(runs.only("data.batch_size", 32).only("diagnostics.gradient_noise.samples", 256))


def law(run: RunResult) -> dict[int, float]:
    """The variance between groups of m samples, over m."""
    return {m: float(series(run, f"gradient_noise/law/{m}")[0]) for m in (1, 2, 4, 8, 16, 32)}


def _slope(run: RunResult) -> float:
    found = law(run)
    return float(np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)[0])


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
    _, _, variance = exact(runs)
    n, ratios = samples(runs), []
    for m, found in deviations(runs).items():
        ratios.append((found**2).sum(1) / (variance / m * (1 - m / n)))
    return mean(np.mean(ratios, axis=0))


@claim(
    "noise scale from two batch sizes over that from every sample",
    source="McCandlish et al. 2018, appendix A.1",
    why="32 samples' squared norm scatters by some 0.2 around its mean; averaged over seeds",
    expected=1.0,
    within=0.2,
)
def two_batches(runs: Runs) -> Finding:
    """The mean over seeds."""
    names = ("gradient_noise/two_batch", "gradient_noise/noise_scale")
    found = [[float(series(run, name)[0]) for name in names] for run in noises(runs)]
    return mean([two / every for two, every in found])


def draw(runs: Runs, figure: Figure) -> None:
    """Variance over the batch size: both laws and what was found."""
    axes = figure.add_subplot()
    _, _, variance = exact(runs)
    n, m = samples(runs), np.geomspace(1, 250, 400)
    axes.plot(m, 1 / m, color="C0", linewidth=1.4)
    axes.plot(m, 1 / m * (n - m) / (n - 1), color="C1", linewidth=1.4, linestyle="--")
    between = [law(run) for run in noises(runs)]
    sizes = list(between[0])
    axes.plot(sizes, [np.mean([b[k] / b[1] for b in between]) for k in sizes], "o", color="C0")
    found = deviations(runs)
    drawn = [(f**2).sum(1).mean() / variance for f in found.values()]
    axes.plot(list(found), drawn, "s", color="C1")
    axes.set(xscale="log", yscale="log", xlabel="batch size m", ylim=(1e-4, 2))
    axes.set_title("variance of the batch gradient, over that of one sample's")
    axes.text(9, 0.2, "independent: 1/m", color="C0")
    axes.text(60, 0.003, f"from {n} samples,\nwithout replacement:\n1/m · (N−m)/(N−1)", color="C1",
              ha="right", va="top")  # fmt: skip
