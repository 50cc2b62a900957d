"""What was measured for a claim, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Finding(NamedTuple):
    """A value, and the 95 % interval that it lies in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def exactly(value: float) -> Finding:
    """A number in which chance has no part."""
    return Finding(float(value), float(value), float(value))


def mean(values: Sequence[float], level: float = 0.95) -> Finding:
    """The mean over independent repetitions, with Student's interval ``x̄ ± t s/√n``.

    Not finite where a value is not, or where there are fewer than two.

    >>> mean([1.0, 2.0, 3.0])
    Finding(value=2.0, low=-0.48..., high=4.48...)
    """
    from scipy.stats import t

    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return Finding(float(x.mean()) if len(x) else math.nan, math.nan, math.nan)
    half = t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return Finding(float(x.mean()), float(x.mean() - half), float(x.mean() + half))
