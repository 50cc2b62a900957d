"""What a method is expected to find within a number of trials."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln


class Found(NamedTuple):
    """The best of n trials on validation, for n = 1 … N, and what it is worth on unseen data."""

    trials: np.ndarray
    val: np.ndarray
    """expected validation risk of the best"""
    low: np.ndarray
    """its lower quartile over which trials one happens to make"""
    high: np.ndarray
    """its upper quartile"""
    unseen: np.ndarray
    """expected risk on unseen data of the best on validation"""


def chances(count: int) -> np.ndarray:
    """[n, i]: how likely the i-th best of ``count`` trials is the best of n drawn from them.

    ``C(N − i, n − 1) / C(N, n)`` for draws without replacement, which makes the expected best
    unbiased (Tang et al. 2020, "Showing Your Work Doesn't Always Work"); Dodge et al. (2019) drew
    with replacement.

    >>> chances(3).round(4)
    array([[0.3333, 0.3333, 0.3333],
           [0.6667, 0.3333, 0.    ],
           [1.    , 0.    , 0.    ]])
    """
    n, i = np.meshgrid(np.arange(1, count + 1), np.arange(1, count + 1), indexing="ij")
    possible = count - i >= n - 1
    top, taken = np.where(possible, count - i, n - 1), n - 1
    logs = _log_choose(top, taken) - _log_choose(np.full_like(n, count), n)
    return np.where(possible, np.exp(logs), 0.0)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def best_found(val: np.ndarray, unseen: np.ndarray) -> Found:
    """The expected best of n trials, out of N that were made.

    Args:
        val: validation risks of the trials, [N], all finite.
        unseen: their risks on unseen data, [N].
    """
    order = np.argsort(val, kind="stable")
    weights = chances(len(val))
    ranked = val[order]
    below = np.cumsum(weights, axis=1) + 1e-12
    low, high = (ranked[(below >= q).argmax(1)] for q in (0.25, 0.75))
    trials = np.arange(1, len(val) + 1)
    return Found(trials, weights @ ranked, low, high, weights @ unseen[order])
