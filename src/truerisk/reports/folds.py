"""Folds of cross-validation, pooled: the losses of all samples that were tested, each once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import fdtri

from truerisk.reports.seed_mean import LEVEL, SeedMean, student_interval


class FoldLosses(NamedTuple):
    """Losses of the samples that folds tested, [n] by seeds and fold, and the samples' groups."""

    losses: Mapping[Any, np.ndarray]
    groups: Mapping[Any, np.ndarray]

    def subtract(self, other: FoldLosses) -> FoldLosses | None:
        """Take the difference on each sample of the folds that both tested.

        Args:
            other: of another recipe on the same data.

        Returns:
            The differences; None where there are none, or the samples are not the same.
        """
        shared = [seed for seed in self.losses if seed in other.losses]
        if not shared or any(self.losses[s].shape != other.losses[s].shape for s in shared):
            return None
        return FoldLosses({s: self.losses[s] - other.losses[s] for s in shared}, self.groups)


class PooledMean(NamedTuple):
    """A mean over samples of all folds, and the degrees of freedom of its standard error."""

    estimate: SeedMean
    freedom: float


def pool_folds(folds: FoldLosses, overlap: float) -> PooledMean | None:
    """Estimate the mean over all tested samples, ``se² = v·(1 + K·overlap)`` of K folds.

    ``v = Σₖ nₖ²vₖ / (Σ nₖ)²`` is the variance of the mean over samples, vₖ that of fold k from the
    losses around the fold's own mean, clustered where samples come in groups. The factor is the
    correction for training sets that share samples (Nadeau & Bengio 2003, "Inference for the
    Generalization Error", eq. 10), whose variance of a fold's mean is the K means' own. Taken from
    the samples it has n − K degrees of freedom rather than K − 1 (the within-fold estimator of
    Bayle, Bayle, Janson & Mackey 2020, "Cross-validation Confidence Intervals for Test Error").

    It leaves out what training adds by chance. Where folds differ by more than their samples
    explain (F test of one-way analysis of variance, at 5 %), nothing is pooled.

    Args:
        folds: losses, or differences of losses, of each sample.
        overlap: test samples over training samples.

    Returns:
        The mean; None where a fold has fewer than two samples or groups, all their losses are
        alike, or folds differ by more than their samples explain.

    >>> losses = {(0, 0): np.array([1.0, 2.0, 3.0]), (0, 1): np.array([2.0, 3.0, 4.0])}
    >>> pool_folds(FoldLosses(losses, {}), 1.0).estimate.stderr  # √(1/6 · (1 + 2))
    0.7071067811865476
    """
    means, variances, sizes, freedom = [], [], [], 0
    for seed, values in folds.losses.items():
        count, variance = _estimate_variance(values, folds.groups.get(seed))
        if count < 2:
            return None
        means.append(values.mean())
        variances.append(variance)
        sizes.append(len(values))
        freedom += count - 1
    count = len(means)
    if count < 2 or not sum(variances):
        return None
    # the same samples come again with every seed
    freedom //= max(1, count // len({seed[-1] for seed in folds.losses}))
    limit = float(np.mean(variances)) * fdtri(count - 1, freedom, LEVEL)
    if np.var(means, ddof=1) > limit:
        return None
    shares = np.array(sizes) / sum(sizes)
    mean = float(shares @ np.array(means))
    variance = float(shares**2 @ np.array(variances))
    stderr = math.sqrt(variance * (1 + count * overlap))
    low, high = map(float, student_interval(mean, stderr, freedom))
    return PooledMean(SeedMean(mean, stderr, low, high, count), freedom)


def _estimate_variance(values: np.ndarray, groups: np.ndarray | None) -> tuple[int, float]:
    """Return the number of independent samples, or groups, and the variance of their mean."""
    rest = values - values.mean()
    if groups is not None:
        rest = np.bincount(groups, rest)[np.unique(groups)]
    count = len(rest)
    if count < 2:
        return count, math.nan
    return count, float(np.square(rest).sum()) * count / (count - 1) / len(values) ** 2
