"""Risk descends twice: it peaks where a model just interpolates, and falls again beyond.

Least squares of least norm on n samples with noise σ has the risk σ²d/(n − d − 1) above Bayes'
with d < n Gaussian features, and r²(1 − n/d) + σ²n/(d − n − 1) with more, where r is the norm of
the true weights: both grow without bound towards d = n.

One hidden layer of growing width on 500 signals of MNIST-1D, 15 % of them with a wrong label, is
trained for 1500 epochs. By width, and by epochs at the greatest width, a peak is the place that
lies highest above the lower of what comes before and what comes after; it is found in the other
seeds. The width that interpolates is the least with a training error of 10 %, as in the source.

By width the peak is there, at the width that interpolates. It is a low one: that errors rise
towards it from narrower widths, 0.011 [-0.010, 0.032] decades, is not settled by five seeds. By
epochs there is none: the error is down to 69 % after the first 15 and stays there. Looked at every
2 epochs up to the 200th, at learning rates of 0.003 and 0.0003 and five other seeds, it falls to 67
and 68 % and stays, too. The source sees its peak in residual networks on 50,000 images over 4000
epochs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.verdicts import (
    Claim,
    Finding,
    Runs,
    claim,
    exact_finding,
    mean_finding,
    read_series,
    read_setting,
    write_grids,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMULA = "E f − σ² = σ²d/(n − d − 1)  (d < n),   r²(1 − n/d) + σ²n/(d − n − 1)  (d > n)"
SOURCE = "Hastie et al. 2022; Belkin, Hsu & Xu 2020; Nakkiran et al. 2020, Deep Double Descent"
TOPIC = "Risk and generalization"
COST = "3 min"
QUICK = [
    write_grids(
        {
            **{"seed": range(8), "data.source.num_samples": 120, "data.val": 20},
            **{"data.source.signal": 2.0, "data.source.dimension": [50, 125, 200]},
            **{"model.bias": False, "trainer.precision": "64-true", "trainer.max_epochs": 1},
            "risk.every": 1000000,
        }
    )
]
SAMPLES, SIGNAL = 100, 2.0
INTERPOLATES = 0.1
"""The training error up to which a model is said to fit its samples."""


def predict_excess(d: Any, n: int = SAMPLES) -> Any:
    """Compute the mean risk above Bayes' for noise of variance 1.

    Args:
        d: features, a number or many.
        n: samples.
    """
    d = np.asarray(d, dtype=float)
    many = SIGNAL**2 * (1 - n / d) + n / (d - n - 1)
    return np.where(d < n, d / (n - d - 1), many)


def read_excess(runs: Runs) -> dict[int, np.ndarray]:
    """Read the true risk above Bayes' [seeds] of least squares, by the number of features."""
    found = runs.with_setting("choices.data", "noisy_linear").grouped_by("data.source.dimension")
    return {
        d: np.array([r.summary["risk/true"].value - r.summary["risk/bayes"].value for r in group])
        for d, group in found.items()
    }


def claim_least_norm(d: int) -> Claim:
    """Make the claim on least squares with d features."""

    @claim(
        f"least norm, γ = d/n = {d / SAMPLES:g}: true risk above the noise, over the formula",
        source="Belkin, Hsu & Xu 2020, theorem 1; Hastie et al. 2022, theorem 1 for d, n → ∞",
        why="the interval that is to be had from 100 training sets is about ± 7 % near γ = 1",
        expected=1.0,
        within=0.15,
    )
    def excess(runs: Runs) -> Finding:
        values = read_excess(runs).get(d, np.array([math.nan]))
        return mean_finding((values / predict_excess(d)).tolist())

    return excess


(below_half, below, above, above_double, far_above) = map(claim_least_norm, (50, 80, 125, 200, 400))


def read_errors(runs: Runs, split: str) -> dict[int, np.ndarray]:
    """Read the errors over time [seeds, measurements] of the networks, by width.

    Args:
        runs: the study's.
        split: ``train`` or ``val``.
    """
    found = runs.with_setting("choices.model", "mlp").grouped_by("model.width")
    return {
        width: np.array([read_series(run, f"error/{split}") for run in group])
        for width, group in found.items()
    }


def find_peak(curve: np.ndarray) -> int:
    """Find the place that lies highest above the lower of both sides.

    Args:
        curve: [n].

    >>> find_peak(np.array([5.0, 2.0, 3.0, 4.0, 1.0, 1.5]))
    3
    """
    heights = [
        min(curve[i] - curve[:i].min(), curve[i] - curve[i + 1 :].min())
        for i in range(1, len(curve) - 1)
    ]
    return 1 + int(np.argmax(heights))


def measure_descents(curves: np.ndarray) -> tuple[list[float], list[float]]:
    """Measure how far a peak lies above what comes before it and above the end.

    Args:
        curves: errors [seeds, places].

    Returns:
        Two lists of log₁₀ of ratios, one a seed, with the places found in the other seeds.
    """
    rises, falls = [], []
    for seed, curve in enumerate(curves):
        others = np.delete(curves, seed, axis=0).mean(0)
        peak = find_peak(others)
        rises.append(math.log10(curve[peak] / curve[others[:peak].argmin()]))
        falls.append(math.log10(curve[peak] / curve[-1]))
    return rises, falls


def pick_curves(runs: Runs, along: str) -> np.ndarray:
    """Return validation errors [seeds, places] at the end by width, or of the widest over time.

    Args:
        runs: the study's.
        along: ``width`` or ``time``.
    """
    errors = read_errors(runs, "val")
    if not errors:
        return np.empty((0, 0))
    if along == "time":
        return errors[max(errors)]
    return np.array([curves[:, -1] for curves in errors.values()]).T


def claim_descent(along: str, source: str, second: bool) -> Claim:
    """Make the claim that a validation error has risen to its peak, or falls from it."""
    side = "the lowest before it"
    if second:
        side = "that at the end"

    @claim(
        f"MLP along {along}: log₁₀ of the validation error at its peak over {side}",
        source=source,
        why="the sign alone",
        low=0.0,
    )
    def descent(runs: Runs) -> Finding:
        curves = pick_curves(runs, along)
        if not curves.size:
            return mean_finding([math.nan])
        return mean_finding(measure_descents(curves)[second])

    return descent


WIDTHS, EPOCHS = "Nakkiran et al. 2020, §5", "Nakkiran et al. 2020, §6"
width_rise, width_fall = (claim_descent("width", WIDTHS, second) for second in (False, True))


@claim(
    "the width of the peak over that which just interpolates",
    source=f"{WIDTHS}: the peak is at the interpolation threshold",
    why="widths go by factors of up to 2",
    low=0.5,
    high=2.0,
)
def peak_interpolates(runs: Runs) -> Finding:
    """Of the means over seeds."""
    errors = read_errors(runs, "train")
    if not errors:
        return exact_finding(math.nan)
    peak = list(errors)[find_peak(pick_curves(runs, "width").mean(0))]
    return exact_finding(peak / _find_fitting_width(runs))


def _find_fitting_width(runs: Runs) -> float:
    """Find the least width whose mean training error is small enough."""
    errors = read_errors(runs, "train").items()
    fits = [width for width, curves in errors if curves[:, -1].mean() <= INTERPOLATES]
    return min(fits, default=math.nan)


time_rise, time_fall = (claim_descent("time", EPOCHS, second) for second in (False, True))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the risk of least squares over γ, and errors of networks over width and time.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    errors = read_errors(runs, "val")
    if not errors:  # the quick study has no network
        _draw_least_norm(runs, figure.add_subplot())
        return
    panels = figure.subplot_mosaic([["norm", "norm"], ["width", "time"]])
    _draw_least_norm(runs, panels["norm"])
    every = read_setting(runs.with_setting("choices.model", "mlp")[0], "risk.every")
    widths, times = list(errors), every * np.arange(next(iter(errors.values())).shape[1])
    for name, places, skipped in (("width", widths, 0), ("time", times, 1)):
        curves = 100 * pick_curves(runs, name).T[skipped:]
        panels[name].plot(places[skipped:], curves, color="C0", linewidth=0.6, alpha=0.5)
        panels[name].plot(places[skipped:], curves.mean(1), "C0", linewidth=1.8, label="mean")
        panels[name].lines[0].set_label("a seed")
        panels[name].set(xscale="log", ylim=(65, 80))
    fits = _find_fitting_width(runs)
    panels["width"].axvline(fits, color="C1", linewidth=1.2)
    panels["width"].text(fits * 1.15, 78.5, "interpolates", color="C1", va="center")
    panels["width"].set(xlabel="width", title="MLP: validation error, %")
    panels["time"].legend(fontsize="small", frameon=False, loc="upper right")
    panels["time"].set(xlabel="epoch", title=f"of width {max(errors)}")


def _draw_least_norm(runs: Runs, axes: Any) -> None:
    """Draw the mean risk above Bayes' with its interval, beside the formula."""
    for grid in (np.geomspace(40, 97, 200), np.geomspace(104, 500, 200)):
        (theory,) = axes.plot(grid / SAMPLES, predict_excess(grid), color="C1", linewidth=1.4)
    for d, values in read_excess(runs).items():
        found = mean_finding(values.tolist())
        reach = [[found.value - found.low], [found.high - found.value]]
        points = axes.errorbar(d / SAMPLES, found.value, reach, fmt="o", color="C0", capsize=4)
    axes.legend([theory, points], ["theory", "mean [95 %]"], fontsize="small", frameon=False)
    axes.set(xscale="log", ylim=(0, 10), xlabel="γ = d/n", title="least norm: risk − σ²")
    axes.set_xticks([0.5, 0.8, 1.25, 2, 4], ["0.5", "0.8", "1.25", "2", "4"])
    axes.minorticks_off()
