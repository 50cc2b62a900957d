"""The probability of improvement: how often a run of one recipe beats a run of another."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from truerisk.reports.estimate import LEVEL

RESAMPLES = 2000


class Improvement(NamedTuple):
    """A probability with its interval; nan where there are too few runs."""

    probability: float
    low: float
    high: float


def improvement(a: np.ndarray, b: np.ndarray) -> Improvement:
    """P(A < B) for two fresh runs, ties counting half, with a percentile bootstrap interval.

    The Mann-Whitney statistic over its largest value, as Agarwal et al. (2021, §4.3) use it; runs
    of either recipe are drawn anew with replacement, 2000 times. A run that diverged may be given
    as infinite: it loses against every other.

    >>> improvement(np.array([1.0, 2.0]), np.array([2.0, 3.0])).probability
    0.875
    """
    if not len(a) or not len(b):
        return Improvement(math.nan, math.nan, math.nan)
    wins = (a[:, None] < b) + 0.5 * (a[:, None] == b)
    found = float(wins.mean())
    if min(len(a), len(b)) < 2:
        return Improvement(found, math.nan, math.nan)
    draw = np.random.default_rng(0)
    times_a = draw.multinomial(len(a), np.full(len(a), 1 / len(a)), RESAMPLES)
    times_b = draw.multinomial(len(b), np.full(len(b), 1 / len(b)), RESAMPLES)
    means = ((times_a @ wins) * times_b).sum(1) / (len(a) * len(b))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Improvement(found, float(low), float(high))
