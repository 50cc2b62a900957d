"""Means over independent seeds, and over the samples of folds, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# not scipy.stats, whose t.ppf is this very function: it takes four times as long to import
from scipy.special import fdtri, stdtrit

LEVEL = 0.95
"""The coverage of every interval in a report."""


ROUNDING = 1e-14
"""Values whose spread is a smaller share of them are one number, differently rounded."""

SKEWED = 8
"""Values from which on their skewness is known well enough to allow for it."""


class Limits(NamedTuple):
    """The least and the largest that values can be, and of how many samples each is."""

    low: float = -math.inf
    high: float = math.inf
    size: float = math.inf

    @property
    def closed(self) -> bool:
        """Whether both are finite, so that a value is a share of the way between them."""
        return math.isfinite(self.high - self.low)

    def bound_closed(self, mean: Any, stderr: Any, freedom: Any) -> tuple[Any, Any]:
        """Bound a mean between finite limits, as `bound_share` does the share of the way."""
        width = self.high - self.low
        share, error = (np.asarray(mean) - self.low) / width, np.asarray(stderr) / width
        low, high = bound_share(share, error, freedom, self.size)
        return self.low + width * low, self.low + width * high


UNLIMITED = Limits()


class SeedMean(NamedTuple):
    """A mean over n seeds with its standard error and interval; nan where n is too small."""

    mean: float
    stderr: float
    low: float
    high: float
    n: int


def estimate_mean(
    values: Sequence[float] | np.ndarray, level: float = LEVEL, overlap: float = 0.0
) -> SeedMean:
    """Estimate a mean with ``se = s/√n`` and Student's interval ``mean ± t(n − 1)·se``.

    The interval covers the mean of the distribution that the values are drawn from, in ``level``
    of all studies where that is normal, and nearly so where it is not too skewed for n.

    Args:
        values: independent numbers, [n].
        level: the coverage of the interval.
        overlap: test samples over training samples where values are of folds, whose training sets
            overlap: ``se = s·√(1/n + overlap)`` then (Nadeau & Bengio 2003, "Inference for the
            Generalization Error", §3, eq. 10; Bouckaert & Frank 2004 for folds drawn repeatedly).

    Returns:
        The estimate; no standard error and no interval where n < 2, and no mean where n = 0.

    Source: Student 1908, "The Probable Error of a Mean".

    >>> [round(x, 4) for x in estimate_mean([1.0, 2.0, 3.0])]
    [2.0, 0.5774, -0.4841, 4.4841, 3]
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n == 0:
        return SeedMean(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(x.mean())
    if n == 1:
        return SeedMean(mean, math.nan, math.nan, math.nan, 1)
    if np.ptp(x) <= ROUNDING * abs(mean):
        x = np.full(n, mean)
    stderr = float(x.std(ddof=1)) / math.sqrt(n) * math.sqrt(1 + n * overlap)
    low, high = student_interval(mean, stderr, n - 1, level)
    return SeedMean(mean, stderr, float(low), float(high), n)


def estimate_columns(
    values: np.ndarray, limits: Limits = UNLIMITED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate the mean of each column, with its interval, from the finite entries.

    From `SKEWED` entries on the interval allows for their skewness (`bound_skewed`), below that it
    is Student's, cut at a limit; between two limits it is `bound_share`.

    Args:
        values: [n, columns]; entries that are nan or infinite do not count.
        limits: of the values, as those of an error are 0 and 1.

    Returns:
        Means, lower and upper bounds, each [columns]; bounds are nan where fewer than two entries
        of the column are finite.
    """
    finite = np.isfinite(values)
    n = finite.sum(0)
    mean = np.where(finite, values, 0.0).sum(0) / np.maximum(n, 1)
    rest = np.where(finite, values - mean, 0.0)
    rest = np.where(np.abs(rest) <= ROUNDING * np.abs(mean), 0.0, rest)
    squares = (rest**2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # n = 1 gives nan, as it should
        stderr = np.sqrt(squares / (n - 1) / n)
        if limits.closed:
            return mean, *limits.bound_closed(mean, stderr, n - 1)
        third = (rest**3).sum(0) * n / ((n - 1) * (n - 2))
        skewness = third / (squares / (n - 1)) ** 1.5
    skewness = np.where((n >= SKEWED) & (squares > 0), skewness, 0.0)
    low, high = bound_skewed(mean, stderr, n - 1, skewness)
    return mean, np.maximum(low, limits.low), np.minimum(high, limits.high)


def student_interval(mean: Any, stderr: Any, freedom: Any, level: float = LEVEL) -> tuple[Any, Any]:
    """Bound a mean by Student's t distribution; all arguments broadcast.

    Args:
        mean: the estimate.
        stderr: its standard error.
        freedom: degrees of freedom of the standard error, which need not be whole (Welch 1947).
        level: the coverage of the interval.

    Returns:
        The lower and the upper bound.
    """
    reach = stdtrit(freedom, (1 + level) / 2) * stderr
    return mean - reach, mean + reach


def bound_skewed(mean: Any, stderr: Any, freedom: Any, skewness: Any) -> tuple[Any, Any]:
    """Bound the mean of skewed values by Hall's transformation; all arguments broadcast.

    ``[m − g⁻¹(t)·se, m − g⁻¹(−t)·se]`` with ``g(x) = x + ax²/3 + a²x³/27 + a/6`` and ``a = γ/√n``,
    the cubic that makes Student's statistic symmetric. Without skewness it is Student's interval.

    Args:
        mean: the estimate.
        stderr: its standard error.
        freedom: n − 1.
        skewness: γ, the values' third standardized moment.

    Returns:
        The lower and the upper bound.

    Source: Hall, "On the Removal of Skewness by Transformation", JRSS B 54 (1992).

    >>> low, high = bound_skewed(1.0, 0.1, 9, 2.0)
    >>> round(float(low), 3), round(float(high), 3)
    (0.842, 1.85)
    """
    t = stdtrit(freedom, (1 + LEVEL) / 2)
    a = np.asarray(skewness) / np.sqrt(freedom + 1)
    small = np.where(abs(a) < 1e-6, 1.0, a)

    def invert(y: Any) -> Any:
        return np.where(abs(a) < 1e-6, y, 3 / small * (np.cbrt(1 + small * (y - small / 6)) - 1))

    return mean - invert(t) * stderr, mean - invert(-t) * stderr


def bound_share(
    mean: Any, stderr: Any, freedom: Any, size: float, level: float = LEVEL
) -> tuple[Any, Any]:
    """Bound a mean of shares by Wilson's interval with Student's quantile; arguments broadcast.

    ``(p + t²/2m ± t √(p(1 − p)/m + t²/4m²)) / (1 + t²/m)``, with as many samples m as the standard
    error is worth, ``m = p(1 − p)/se²``. It stays between 0 and 1, and covers near them, where
    ``p ± t·se`` does not: of three runs without an error se is 0, which says little of the next.

    Args:
        mean: the mean share p.
        stderr: its standard error over seeds.
        freedom: degrees of freedom of the standard error.
        size: samples behind each share, which is m where the shares are all alike.
        level: the coverage of the interval.

    Returns:
        The lower and the upper bound; Student's where a mean is no share.

    Source: Wilson 1927, with the samples that a standard error is worth of Korn & Graubard 1998.

    >>> [round(float(end), 4) for end in bound_share(0.0, 0.0, 2, 30)]
    [0.0, 0.3816]
    """
    p, se = np.asarray(mean, dtype=float), np.asarray(stderr, dtype=float)
    spread = p * (1 - p)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.where((se == 0) | (spread == 0), size, spread / se**2)
        t = np.where(np.isnan(se), np.nan, stdtrit(freedom, (1 + level) / 2))
        middle = (p + t * t / (2 * worth)) / (1 + t * t / worth)
        reach = t / (1 + t * t / worth) * np.sqrt(spread / worth + (t / worth) ** 2 / 4)
    shares = (p >= 0) & (p <= 1)
    low, high = student_interval(p, se, freedom, level)
    bounds = np.maximum(middle - reach, 0.0), np.minimum(middle + reach, 1.0)
    return np.where(shares, bounds[0], low), np.where(shares, bounds[1], high)


# --- folds ------------------------------------------------------------------------------------


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
