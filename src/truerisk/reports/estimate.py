"""The mean of a few independent numbers, and how far off it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

LEVEL = 0.95
"""How often an interval holds the truth."""


class Estimate(NamedTuple):
    """A mean over n seeds with its standard error and interval; nan where n is too small."""

    mean: float
    stderr: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> Estimate:
    """The mean with ``se = s/√n`` and Student's interval ``mean ± t(n − 1)·se`` (Student 1908).

    It covers the mean of the distribution the values are drawn from, in ``level`` of all studies
    where that is normal, and nearly so where it is not too skewed for n.

    >>> [round(x, 4) for x in estimate([1.0, 2.0, 3.0])]
    [2.0, 0.5774, -0.4841, 4.4841, 3]
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    mean = float(x.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, n)
    return student(mean, float(x.std(ddof=1)) / math.sqrt(n), n, level)


def student(mean: float, stderr: float, n: int, level: float = LEVEL) -> Estimate:
    """A mean of n numbers with Student's interval for a standard error."""
    reach = float(special.stdtrit(n - 1, (1 + level) / 2)) * stderr
    return Estimate(mean, stderr, mean - reach, mean + reach, n)
