"""Metrics as functionals T(w) of the samples' weights, and the standard errors that follow.

A metric of n samples is T at equal weights. How it changes with the weight of one sample is that
sample's influence ψᵢ = n ∂T/∂wᵢ, whose spread is the error of T: autograd gives it in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Functional = Callable[[Tensor], Tensor]
"""From weights [n] to a value [] or [v]; a common factor of the weights changes nothing."""

RESAMPLES = 200
"""Bootstrap draws for a standard error, which is then known to 5 %."""


def find_influences(functional: Functional, count: int) -> tuple[Tensor, Tensor]:
    """Return the values [v] of a functional, and the influence of each sample on each, [n, v].

    Args:
        functional: T(w).
        count: n.

    Source: Jaeckel, "The Infinitesimal Jackknife" (1972); Efron, "The Jackknife, the Bootstrap and
    Other Resampling Plans" (1982), §6.

    >>> x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    >>> find_influences(lambda w: (w * x).sum() / w.sum(), 3)[1].T  # xᵢ minus the mean
    tensor([[-2., -1.,  3.]], dtype=torch.float64)
    """
    # measured under no_grad, and of what was measured there
    with torch.enable_grad():
        w = torch.ones(count, dtype=torch.float64, requires_grad=True)
        values = torch.atleast_1d(functional(w))
        slopes = [
            torch.autograd.grad(v, w, retain_graph=True, allow_unused=True, materialize_grads=True)
            for v in values
        ]
    return values.detach(), count * torch.stack([slope[0] for slope in slopes], 1)


def combine_influences(influences: Tensor, groups: Tensor | None = None) -> Tensor:
    """Return standard errors [v] of influences [n, v]; nan of one sample or one group.

    ``se² = G/(G − 1) · Σ_g (Σ_{i∈g} ψᵢ)² / n²``, where every sample is a group of its own unless
    samples come in groups. Of a mean it is s/√n.

    Args:
        influences: as `find_influences` returns them.
        groups: the group of each sample, int64 [n], where samples of one depend on each other.

    Source: Cameron & Miller, "A Practitioner's Guide to Cluster-Robust Inference" (2015), §II.
    """
    n = len(influences)
    if groups is not None:
        _, places = groups.unique(return_inverse=True)
        sums = influences.new_zeros(int(places.max()) + 1, influences.shape[1])
        influences = sums.index_add(0, places, influences)
    count = len(influences)
    if count < 2:
        return influences.new_full(influences.shape[1:], math.nan)
    return (influences.square().sum(0) * count / (count - 1)).sqrt() / n


def bootstrap_stderr(
    statistic: Callable[[Tensor], Tensor], count: int, groups: Tensor | None = None
) -> Tensor:
    """Return standard errors [v] of a statistic over draws of the samples with replacement.

    Args:
        statistic: from indices [m] of samples to values [v].
        count: n.
        groups: the group of each sample, [n]; whole groups are drawn.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).
    """
    draw = torch.Generator().manual_seed(0)  # the same data twice have the same error
    members = list(torch.arange(count).split(1))
    if groups is not None:
        _, places = groups.unique(return_inverse=True)
        members = [(places == g).nonzero()[:, 0] for g in range(int(places.max()) + 1)]
    values = []
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(members), (len(members),), generator=draw)
        index = drawn
        if groups is not None:
            index = torch.cat([members[int(g)] for g in drawn])
        values.append(torch.atleast_1d(statistic(index)).double())
    table = torch.stack(values)
    # a draw may lack a class, of which nothing can be computed
    finite = table.isfinite()
    kept = torch.where(finite, table, 0.0)
    mean = kept.sum(0) / finite.sum(0)
    squares = (torch.where(finite, table - mean, 0.0) ** 2).sum(0)
    return (squares / (finite.sum(0) - 1)).sqrt()


def divide_safely(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and 0 where below is 0, with finite derivatives there."""
    empty = below == 0
    return torch.where(empty, 0.0, above / torch.where(empty, 1.0, below))


def average_weighted(values: Tensor) -> Functional:
    """Return the functional of a mean of values [n] or [n, …].

    Args:
        values: of each sample.
    """
    each = values.double().flatten(1).mean(1) if values.ndim > 1 else values.double()
    return lambda w: (w * each).sum() / w.sum()


# --- counts of true and predicted classes ---------------------------------------------------------


class CellCounts:
    """How often each class was taken for each, as a function of weights.

    Args:
        target: true classes [n], or [n, T] of T tokens a sample; 0 or 1 for each label, [n, L].
        predicted: what was predicted, in the same shape.
        classes: K; 2 where the columns are labels.
        labels: whether each column has a table of its own.
    """

    def __init__(self, target: Tensor, predicted: Tensor, classes: int, labels: bool) -> None:
        self.classes, self.labels = classes, labels
        cell = (target.long() * classes + predicted.long()).reshape(len(target), -1)
        columns = cell.shape[1]
        self.sample = torch.arange(len(cell))[:, None].expand(-1, columns).reshape(-1)
        self.tables = columns if labels else 1
        offset = torch.arange(columns) if labels else torch.zeros(columns, dtype=torch.long)
        self.cell = (cell + offset * classes**2).reshape(-1)

    def count(self, w: Tensor) -> Tensor:
        """Return shares [tables, true, predicted], which sum to 1 in each table.

        Args:
            w: weights [n].
        """
        size = self.tables * self.classes**2
        counts = w.new_zeros(size).index_add(0, self.cell, w[self.sample])
        return self.tables * counts.view(self.tables, self.classes, -1) / counts.sum()

    def count_outcomes(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the shares of true and false positives, false and true negatives, [K] each.

        Args:
            w: weights [n].
        """
        table = self.count(w)
        if self.labels:
            return table[:, 1, 1], table[:, 0, 1], table[:, 1, 0], table[:, 0, 0]
        hits = table[0].diagonal()
        fp, fn = table[0].sum(0) - hits, table[0].sum(1) - hits
        return hits, fp, fn, 1 - hits - fp - fn


def rate_outcomes(name: str, beta: float, parts: tuple[Tensor, ...], all_right: bool) -> Tensor:
    """Return a rate of counted outcomes.

    Args:
        name: of the metric, without the kind of its task.
        beta: of the F score.
        parts: true and false positives, false and true negatives.
        all_right: whether accuracy counts true negatives, as of labels.

    >>> parts = tuple(torch.tensor(share) for share in (0.3, 0.1, 0.2, 0.4))
    >>> round(float(rate_outcomes("F1Score", 1.0, parts, False)), 4)
    0.6667
    """
    tp, fp, fn, tn = parts
    if name == "Precision":
        return divide_safely(tp, tp + fp)
    if name == "Specificity":
        return divide_safely(tn, tn + fp)
    if name in ("F1Score", "FBetaScore"):
        b = beta**2
        return divide_safely((1 + b) * tp, (1 + b) * tp + b * fn + fp)
    if name == "Accuracy" and all_right:
        return divide_safely(tp + tn, tp + fp + fn + tn)
    return divide_safely(tp, tp + fn)


def average_rates(
    name: str, counts: CellCounts, average: str | None, beta: float = 1.0, binary: bool = False
) -> Functional:
    """Return the functional of a rate, averaged over classes as torchmetrics does.

    Args:
        name: Accuracy, Precision, Recall, Specificity, F1Score or FBetaScore.
        counts: of the samples.
        average: micro, macro, weighted, or none for a value each.
        beta: of the F score.
        binary: whether the second of two classes alone is the positive one.
    """

    def functional(w: Tensor) -> Tensor:
        parts = counts.count_outcomes(w)
        all_right = counts.labels or binary
        if binary:
            return rate_outcomes(name, beta, tuple(p[1] for p in parts), all_right)
        if average == "micro":
            return rate_outcomes(name, beta, tuple(p.sum() for p in parts), all_right)
        rates = rate_outcomes(name, beta, parts, all_right)
        if average in (None, "none"):
            return rates
        tp, fp, fn, _ = parts
        share = torch.ones_like(tp)
        if average == "weighted":
            share = tp + fn
        elif not counts.labels:
            # a class that is neither there nor predicted does not count
            share = ((tp + fp + fn) > 0).double()
        return (share * rates).sum() / share.sum()

    return functional


def correlate_classes(counts: CellCounts) -> Functional:
    """Return the functional of Matthews' correlation of true and predicted classes.

    Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation
    coefficient" (2004).
    """

    def functional(w: Tensor) -> Tensor:
        table = counts.count(w).mean(0)
        true, predicted = table.sum(1), table.sum(0)
        covariance = table.trace() - (true * predicted).sum()
        spread = (1 - true.square().sum()) * (1 - predicted.square().sum())
        return divide_safely(covariance, spread.clamp(min=0).sqrt())

    return functional


def agree_beyond_chance(counts: CellCounts) -> Functional:
    """Return the functional of Cohen's κ.

    Source: Cohen, "A Coefficient of Agreement for Nominal Scales" (1960).
    """

    def functional(w: Tensor) -> Tensor:
        table = counts.count(w)[0]
        chance = (table.sum(1) * table.sum(0)).sum()
        return divide_safely(table.trace() - chance, 1 - chance)

    return functional


# --- orders of scores -----------------------------------------------------------------------------


def rank_positives(name: str, positive: Tensor, scores: Tensor, average: str | None) -> Functional:
    """Return the functional of the area under the ROC curve, or of average precision.

    ``AUC = P(score of a positive > score of a negative)``, ties counting half;
    ``AP = Σ (Rᵢ − Rᵢ₋₁) Pᵢ`` over the thresholds. Influences of the first are those of DeLong,
    DeLong & Clarke-Pearson (1988).

    Args:
        name: AUROC or AveragePrecision.
        positive: whether each sample is in each class, [n, K].
        scores: of each class, [n, K].
        average: macro, weighted, or none for a value each.
    """
    places = [column.unique(return_inverse=True) for column in scores.T]

    def functional(w: Tensor) -> Tensor:
        values = []
        for k, (levels, place) in enumerate(places):
            inside = w * positive[:, k]
            pos = w.new_zeros(len(levels)).index_add(0, place, inside)
            neg = w.new_zeros(len(levels)).index_add(0, place, w - inside)
            if name == "AUROC":
                below = neg.cumsum(0) - neg / 2
                values.append(divide_safely((pos * below).sum(), pos.sum() * neg.sum()))
            else:
                above, others = (c.flip(0).cumsum(0).flip(0) for c in (pos, neg))
                precision = divide_safely(above, above + others)
                values.append(divide_safely((pos * precision).sum(), pos.sum()))
        rates = torch.stack(values)
        if average in (None, "none"):
            return rates
        if average == "weighted":
            share = (w[:, None] * positive).sum(0)
            return (share * rates).sum() / share.sum()
        return rates.mean()

    return functional


def bin_calibration(target: Tensor, probabilities: Tensor, bins: int) -> Functional:
    """Return the functional of the expected calibration error, ``Σ_b |acc − conf| n_b/n``.

    Args:
        target: true classes [n].
        probabilities: [n, K].
        bins: of equal width.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    confidence, predicted = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins - 1)
    excess = (predicted == target).double() - confidence.double()

    def functional(w: Tensor) -> Tensor:
        return w.new_zeros(bins).index_add(0, place, w * excess).abs().sum() / w.sum()

    return functional


# --- quantities -----------------------------------------------------------------------------------


def correlate_columns(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Return Pearson's correlation of two columns [n] under weights [n]."""
    share = w / w.sum()
    a, b = a - (share * a).sum(), b - (share * b).sum()
    spread = (share * a * a).sum() * (share * b * b).sum()
    return divide_safely((share * a * b).sum(), spread.clamp(min=0).sqrt())


def rank_weighted(x: Tensor) -> Functional:
    """Return the functional of the ranks [n] of x [n], those of ties being averaged."""
    levels, place = x.unique(return_inverse=True)

    def functional(w: Tensor) -> Tensor:
        mass = w.new_zeros(len(levels)).index_add(0, place, w)
        return (mass.cumsum(0) - mass / 2)[place]

    return functional


def compare_quantities(
    name: str, target: Tensor, predicted: Tensor, options: Mapping[str, Any]
) -> Functional | None:
    """Return the functional of a metric of quantities; None where it is not known here.

    Args:
        name: of torchmetrics' class.
        target: [n, outputs].
        predicted: [n, outputs].
        options: the arguments of the class.
    """
    y, f = target.double(), predicted.double()
    gap = (f - y).flatten(1)
    if name == "MeanSquaredError":
        squared = average_weighted(gap.square())
        if options.get("squared", True):
            return squared
        # at 0 a root has no slope
        return lambda w: torch.where(squared(w) > 0, squared(w), 1.0).sqrt() * (squared(w) > 0)
    if name == "MeanAbsoluteError":
        return average_weighted(gap.abs())
    if name == "MeanAbsolutePercentageError":
        # torchmetrics' own least divisor
        return average_weighted(gap.abs() / y.flatten(1).abs().clamp(min=1.17e-06))
    if name == "R2Score" and options.get("multioutput", "uniform_average") == "uniform_average":

        def explain(w: Tensor) -> Tensor:
            share = (w / w.sum())[:, None]
            centred = y - (share * y).sum(0)
            left = divide_safely((share * gap**2).sum(0), (share * centred**2).sum(0))
            return (1 - left).mean()

        return explain
    columns = range(y.shape[1])
    if name == "PearsonCorrCoef":
        return lambda w: torch.stack([correlate_columns(y[:, k], f[:, k], w) for k in columns])
    if name == "SpearmanCorrCoef":
        ranks = [(rank_weighted(y[:, k]), rank_weighted(f[:, k])) for k in columns]
        return lambda w: torch.stack([correlate_columns(a(w), b(w), w) for a, b in ranks])
    return None
