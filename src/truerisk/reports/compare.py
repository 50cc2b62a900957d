"""Whether one recipe's risk is lower than another's, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from truerisk.reports.estimate import LEVEL, Estimate, estimate
from truerisk.reports.improvement import Improvement, improvement

Series = Mapping[Any, float]
"""A metric by seed."""
TOO_FEW = "too few runs to tell"


class Comparison(NamedTuple):
    """Two recipes side by side; a negative difference says that the first one's risk is lower."""

    first: str
    second: str
    difference: Estimate
    paired: bool
    effect: float
    """the difference in standard deviations over seeds, corrected for small n (Hedges 1981)"""
    wins: float
    """share of paired seeds on which the first is lower, ties counting half"""
    improvement: Improvement
    p: float
    adjusted: float = math.nan
    """the p-value after Holm's adjustment"""
    family: int = 1
    """how many comparisons it was adjusted for"""


def compare(
    first: str, second: str, a: Series, b: Series, scores: tuple[Series, Series] | None = None
) -> Comparison:
    """Compare two recipes by a metric of which less is better.

    Runs with the same seed share initial weights, data and order, so their difference leaves out
    what these have in common: with two or more shared seeds the test is Student's on differences,
    with fewer it is Welch's (1947) on the two samples.

    Args:
        first: the name of one recipe.
        second: the name of the other.
        a: the first one's metric by seed, of runs that finished.
        b: the second one's.
        scores: both with runs that diverged as infinite, for the probability of improvement.
    """
    shared = [seed for seed in a if seed in b]
    x, y = np.array([a[s] for s in shared]), np.array([b[s] for s in shared])
    one, two = np.array(list(a.values())), np.array(list(b.values()))
    paired = len(shared) >= 2
    difference, p = _paired(x - y) if paired else _welch(one, two)
    wins = float(((x < y) + 0.5 * (x == y)).mean()) if len(x) else math.nan
    effect = _effect(x, y) if paired else _effect(one, two)
    ranked = scores or (a, b)
    better = improvement(*(np.array(list(s.values())) for s in ranked))
    return Comparison(first, second, difference, paired, effect, wins, better, p)


def _paired(d: np.ndarray) -> tuple[Estimate, float]:
    """The mean difference and its p-value; nan where seeds make no difference at all."""
    found = estimate(d)
    if found.stderr == 0:
        return found, 1.0 if found.mean == 0 else math.nan
    return found, two_sided(found.mean / found.stderr, len(d) - 1)


def _welch(a: np.ndarray, b: np.ndarray) -> tuple[Estimate, float]:
    """The difference of two means with Welch's interval, and its p-value."""
    n = min(len(a), len(b))
    mean = float(a.mean() - b.mean()) if n else math.nan
    one, two = (float(x.var(ddof=1)) / len(x) if n > 1 else 0.0 for x in (a, b))
    if one + two == 0:
        return Estimate(mean, math.nan, math.nan, math.nan, n), math.nan
    freedom = (one + two) ** 2 / (one**2 / (len(a) - 1) + two**2 / (len(b) - 1))
    stderr = math.sqrt(one + two)
    reach = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * stderr
    return Estimate(mean, stderr, mean - reach, mean + reach, n), two_sided(mean / stderr, freedom)


def two_sided(t: float, freedom: float) -> float:
    """How often |t| is as large as this where there is no difference."""
    return float(2 * special.stdtr(freedom, -abs(t)))


def _effect(a: np.ndarray, b: np.ndarray) -> float:
    """``J·(ā − b̄)/√((s²ₐ + s²ᵦ)/2)``, with Hedges' J for the degrees of freedom there are.

    >>> round(_effect(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])), 4)
    -0.7979
    """
    n = min(len(a), len(b))
    spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) if n > 1 else 0.0
    return hedges(len(a) + len(b) - 2) * float(a.mean() - b.mean()) / spread if spread else math.nan


def hedges(freedom: int) -> float:
    """What makes a standardised difference unbiased: ``Γ(m/2) / (√(m/2) Γ((m − 1)/2))``.

    >>> round(hedges(4), 4)
    0.7979
    """
    m = freedom / 2
    return math.exp(math.lgamma(m) - math.lgamma(m - 0.5)) / math.sqrt(m)


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """P-values adjusted so that all claims at 5 % are right in 95 % of studies (Holm 1979).

    The k-th smallest of m is multiplied by m − k + 1, and none is below an earlier one. A nan is a
    comparison that could not be made, and stays one.

    Args:
        p: the p-values that are shown.
        family: m, where they were chosen out of more by looking at the results.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    values = np.asarray(p, dtype=float)
    made = np.flatnonzero(np.isfinite(values))
    order = made[np.argsort(values[made], kind="stable")]
    times = max(family or 0, len(order)) - np.arange(len(order))
    values[order] = np.minimum(np.maximum.accumulate(values[order] * times), 1.0)
    return [float(v) for v in values]


def adjust(comparisons: Sequence[Comparison], family: int | None = None) -> list[Comparison]:
    """The comparisons, each adjusted for all of them, or for the ``family`` they were chosen of."""
    adjusted = holm([c.p for c in comparisons], family)
    size = max(family or 0, sum(math.isfinite(c.p) for c in comparisons))
    return [c._replace(adjusted=p, family=size) for c, p in zip(comparisons, adjusted, strict=True)]


def verdict(c: Comparison) -> str:
    """What the numbers allow one to say, in words.

    ``lower`` and ``higher`` are said where the adjusted p-value is at most 5 %, which implies that
    the interval excludes zero.
    """
    d = c.difference
    if c.p == 1.0 and d.stderr == 0:
        return "the same on every seed"
    if not math.isfinite(c.p):
        return "differ by the same on every seed" if d.stderr == 0 else TOO_FEW
    if d.low <= 0 <= d.high:
        return "no difference shown"
    if not c.adjusted <= 1 - LEVEL:
        return f"not shown after adjustment for {c.family} comparisons"
    return "lower" if d.mean < 0 else "higher"
