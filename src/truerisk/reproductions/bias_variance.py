"""Expected error is bias² plus variance plus noise: a U over the degree, none over the width.

Every run is fitted to a training set of its own, drawn from a polynomial of degree 3 seen through
noise. Its predictions on a grid give bias and variance; its error is measured on fresh samples, so
that the two sides of the equation have nothing in common but the runs. Least squares of growing
degree has the textbook's U. The error of a wide MLP does not rise again with its width.

Two capacities are compared by the logarithms of their errors. Where a polynomial of degree 12 meets
a gap between its 30 points it is off by any amount, and differences of the errors themselves
(tried first) have so heavy a tail that their mean says little.

The sign of what a wider MLP's error does would take some 800 training sets to settle: over the
first hundred tried, its logarithm fell by 0.015 ± 0.03. So the claim is that it does not rise by
as much as a tenth, written down before the hundred measured here were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from truerisk.result import RunResult
from truerisk.verdicts import Finding, Runs, claim, exact_finding, mean_finding, write_grids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMULA = "E (f̂(x) − y)² = (E f̂(x) − f(x))² + Var f̂(x) + σ²,  on average over x"
SOURCE = "Geman, Bienenstock & Doursat 1992; Hastie, Tibshirani & Friedman 2009, §7.3"
TOPIC = "Risk and generalization"
COST = "3 min"
QUICK = [
    "seed=range(12)",
    write_grids(
        {"model.degree": [1, 3, 12]},
        {
            "model": "mlp",
            "model.depth": 1,
            "model.width": [10, 100],
            "model.activation": "tanh",
            "initializer.gain": 1.0,
            "optimizer": "adam",
            "optimizer.lr": 0.01,
            "data.batch_size": "full",
            "trainer.max_epochs": 200,
        },
    ),
]
ESL = "Hastie, Tibshirani & Friedman 2009, §7.3"
GEMAN = "Geman, Bienenstock & Doursat 1992, §2.3"

GRID = 64
"""Nodes of Gauss–Legendre quadrature: exact for the average over x of squares up to degree 63."""


class ErrorParts(NamedTuple):
    """Both sides at one capacity; ``errors`` and ``measured`` have one number a training set."""

    bias: float
    variance: float
    noise: float
    errors: np.ndarray
    """of the fits on the grid, the noise included"""
    measured: np.ndarray
    """on fresh samples"""


def decompose_error(runs: Runs) -> ErrorParts:
    """Estimate bias, variance and noise from runs that differ in their training sets alone."""
    # quadrature rather than samples: x must not add to the error of the parts
    nodes, weights = np.polynomial.legendre.leggauss(GRID)
    source = runs[0].config.data.source
    truth = np.polynomial.polynomial.polyval(nodes, list(source.coefficients))
    fits = np.stack([predict_at(run, nodes) for run in runs])
    # the weights add up to 2, the length of [−1, 1]
    middle, over_x = fits.mean(0), weights / 2
    noise = source.noise**2
    return ErrorParts(
        bias=float((middle - truth) ** 2 @ over_x),
        variance=float(fits.var(0) @ over_x),
        noise=noise,
        errors=(fits - truth) ** 2 @ over_x + noise,
        measured=np.array([run.summary["risk/true"].value for run in runs]),
    )


def predict_at(run: RunResult, x: np.ndarray) -> np.ndarray:
    """Predict at x [n] with a run's best weights; returns [n].

    Args:
        run: whose model has one input.
        x: inputs [n].
    """
    import torch

    model = run.model
    inputs = torch.from_numpy(x.copy()).reshape(-1, 1).to(next(model.parameters()).dtype)
    with torch.no_grad():
        return model(inputs).flatten().double().numpy()


@cache
def decompose_by_capacity(runs: Runs) -> dict[tuple[str, int], ErrorParts]:
    """Decompose the error at every degree and width."""
    groups = {}
    for model, key in (("polynomial", "model.degree"), ("mlp", "model.width")):
        for size, group in runs.with_setting("choices.model", model).grouped_by(key).items():
            groups[model, size] = decompose_error(group)
    return groups


@claim(
    "bias² + variance + noise is the measured error; largest deviation, in standard errors",
    source=GEMAN,
    why="the largest of nine standard normal numbers is below 3.5 in 99.5 of 100 cases",
    high=3.5,
)
def they_add_up(runs: Runs) -> Finding:
    """Over all capacities."""
    return exact_finding(max(map(standardize_deviation, decompose_by_capacity(runs).values())))


def standardize_deviation(parts: ErrorParts) -> float:
    """Divide |measured − (bias² + variance + noise)| by the mean difference's standard error."""
    total = parts.bias + parts.variance + parts.noise
    # each training set's own difference, as both sides vary with it
    paired = parts.measured - parts.errors
    stderr = paired.std(ddof=1) / np.sqrt(len(paired))
    return float(abs(parts.measured.mean() - total) / stderr)


@claim(
    "a straight line is worse than the true degree 3: log₁₀ of the ratio of errors",
    source=ESL,
    why="the sign alone",
    low=0.0,
)
def bias_side(runs: Runs) -> Finding:
    """Paired by training set."""
    return compare_errors(runs, ("polynomial", 1), ("polynomial", 3))


@claim(
    "degree 12 is worse than the true degree 3: log₁₀ of the ratio of errors",
    source=ESL,
    why="the sign alone",
    low=0.0,
)
def variance_side(runs: Runs) -> Finding:
    """Paired by training set."""
    return compare_errors(runs, ("polynomial", 12), ("polynomial", 3))


@claim(
    "an MLP's error does not rise from width 10 to its greatest: log₁₀ of their ratio",
    source="Neal et al. 2018, A Modern Take on the Bias-Variance Tradeoff in Neural Networks, §4",
    why="a rise by a tenth, where least squares of degree 12 rises tenfold",
    high=0.041,
)
def no_rise_with_width(runs: Runs) -> Finding:
    """Paired by training set."""
    # the quick study goes to 100, the full one to 300
    widest = max(size for model, size in decompose_by_capacity(runs) if model == "mlp")
    return compare_errors(runs, ("mlp", widest), ("mlp", 10))


def compare_errors(runs: Runs, one: tuple[str, int], other: tuple[str, int]) -> Finding:
    """Average log₁₀ of the errors at one capacity over those at another, paired by training set.

    Args:
        runs: the study's.
        one: a model and its size.
        other: the one it is compared with.
    """
    parts = decompose_by_capacity(runs)
    # logarithms, as the errors of degree 12 have a heavy tail
    return mean_finding(np.log10(parts[one].errors / parts[other].errors))


def draw_figure(runs: Runs, figure: Figure) -> None:
    """Draw the parts of the error over the degree, and over the width.

    Args:
        runs: the study's.
        figure: an empty one.
    """
    parts = decompose_by_capacity(runs)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, model, name in ((left, "polynomial", "degree"), (right, "mlp", "width of an MLP")):
        sizes = [size for kind, size in parts if kind == model]
        _draw_parts(axes, sizes, [parts[model, size] for size in sizes])
        axes.set(xscale="log", xlabel=name)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    left.set_yscale("log")
    left.set_title("mean squared error;  ● on fresh samples")
    _name_lines(left, [size for kind, size in parts if kind == "polynomial"], parts)


def _draw_parts(axes: Axes, sizes: Sequence[int], parts: Sequence[ErrorParts]) -> None:
    ink = axes.xaxis.label.get_color()
    axes.plot(sizes, [p.bias for p in parts], color="C0", linestyle="--")
    axes.plot(sizes, [p.variance for p in parts], color="C1", linestyle="-.")
    axes.axhline(parts[0].noise, color="C2", linestyle=":")
    axes.plot(sizes, [p.bias + p.variance + p.noise for p in parts], color=ink, linewidth=1.4)
    axes.plot(sizes, [p.measured.mean() for p in parts], "o", color=ink)


def _name_lines(
    axes: Axes, sizes: Sequence[int], parts: Mapping[tuple[str, int], ErrorParts]
) -> None:
    first, last = parts["polynomial", sizes[0]], parts["polynomial", sizes[-1]]
    total = first.bias + first.variance + first.noise
    ink = axes.xaxis.label.get_color()
    for text, x, y, color, side, above_or_below in (
        ("their sum", sizes[0], 1.5 * total, ink, "left", "bottom"),
        ("bias²", 3.4, parts["polynomial", 3].bias, "C0", "left", "top"),
        ("variance", sizes[0], 0.3 * first.variance, "C1", "left", "top"),
        ("noise", sizes[-1], 0.6 * last.noise, "C2", "right", "top"),
    ):
        axes.text(x, y, text, color=color, ha=side, va=above_or_below)
