"""Means over independent seeds, with Student's intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# not scipy.stats, whose t.ppf is this very function: it takes four times as long to import
from scipy.special import stdtrit

LEVEL = 0.95
"""The coverage of every interval in a report."""


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
    stderr = float(x.std(ddof=1)) / math.sqrt(n) * math.sqrt(1 + n * overlap)
    low, high = student_interval(mean, stderr, n - 1, level)
    return SeedMean(mean, stderr, float(low), float(high), n)


def estimate_columns(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate the mean of each column, with its interval, from the finite entries.

    Args:
        values: [n, columns]; entries that are nan or infinite do not count.

    Returns:
        Means, lower and upper bounds, each [columns]; bounds are nan where fewer than two entries
        of the column are finite.
    """
    finite = np.isfinite(values)
    n = finite.sum(0)
    mean = np.where(finite, values, 0.0).sum(0) / np.maximum(n, 1)
    squares = (np.where(finite, values - mean, 0.0) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # n = 1 gives nan, as it should
        stderr = np.sqrt(squares / (n - 1) / n)
        low, high = student_interval(mean, stderr, n - 1)
    return mean, low, high


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
