"""Cross-fitting over seeds: pick on all seeds but one, and judge on that one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from truerisk.reports.estimate import Estimate, estimate, student


def choose(total: np.ndarray, finite: np.ndarray, infinite: np.ndarray) -> np.ndarray:
    """The recipe with the lowest mean along the last axis, −1 where there is none.

    A recipe that diverged on some seed is chosen only where every recipe did: then the least often
    diverged come first, and of these the lowest.

    Args:
        total: sums of the finite risks, [..., recipes].
        finite: how many they are.
        infinite: how many runs diverged.
    """
    share = np.where(finite > 0, infinite / np.maximum(finite + infinite, 1), np.inf)
    best = (finite > 0) & (share <= share.min(-1, keepdims=True))
    mean = np.where(best, total / np.maximum(finite, 1), np.inf)
    return np.where(best.any(-1), mean.argmin(-1), -1)


def _parts(val: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `choose` sums over seeds."""
    there = np.isfinite(val)
    return np.where(there, val, 0.0), there.astype(int), np.isinf(val).astype(int)


def pick(val: np.ndarray) -> int | None:
    """The column of [seeds, recipes] to choose; None where no run has finished.

    >>> pick(np.array([[1.0, 0.5, 0.2], [1.0, 0.6, math.inf]]))
    1
    """
    if not val.size:
        return None
    best = int(choose(*(part.sum(0) for part in _parts(val))))
    return None if best < 0 else best


def crossfit(val: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """On each seed, the score of the recipe that the other seeds' validation risks pick.

    Pick and score share no seed, so that a mean of these is free of the winner's curse (for a pick
    from one seed less). Where nothing can be picked, or the pick has no finite score, it is nan.

    Args:
        val: what is picked by, [seeds, recipes].
        scored: what is asked of the pick, of the same shape.

    >>> val = np.array([[1.0, 2.0], [4.0, 1.0], [1.0, 2.0]])
    >>> crossfit(val, val)  # without the second seed the first recipe is picked, else the second
    array([2., 4., 2.])
    """
    best = choose(*(part.sum(0) - part for part in _parts(val)))
    return _taken(scored, best)


def _taken(scored: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The score at each seed (the last axis of ``best``) of the recipe chosen for it."""
    if scored.shape[1] == 1:
        best = np.zeros_like(best)  # there is nothing to choose, nor to learn from other seeds
    value = scored[np.arange(len(scored)), best]
    return np.where((best >= 0) & np.isfinite(value), value, np.nan)


class Fresh(NamedTuple):
    """Cross-fitted scores, and what they would be without each seed in turn."""

    values: np.ndarray
    """[seeds]"""
    without: np.ndarray
    """[left out, seeds]; nan on the diagonal"""
    settings: int

    def minus(self, other: Fresh) -> Fresh:
        """The difference on each seed."""
        settings = max(self.settings, other.settings)
        return Fresh(self.values - other.values, self.without - other.without, settings)

    def estimate(self) -> Estimate:
        """The mean, with a standard error that knows that picks share seeds.

        Scores on different seeds depend on each other through their picks, so ``s/√n`` is too
        small where picks are close. The jackknife leaves out each seed of the whole procedure,
        ``se² = (n − 1)/n Σ(m₍ᵢ₎ − m̄)²`` (Efron & Stein 1981: not too small on average); the larger
        of the two counts. Of fewer than three seeds there is none.
        """
        found = estimate(self.values[np.isfinite(self.values)])
        if self.settings == 1 or found.n < 2:
            return found
        if found.n < 3:
            return Estimate(found.mean, math.nan, math.nan, math.nan, found.n)
        kept = self.without[np.isfinite(self.values)]
        kept = kept[np.isfinite(kept).any(1)]
        means = np.nanmean(kept, 1)
        jackknife = math.sqrt((len(means) - 1) * float(means.var()))
        return student(found.mean, max(found.stderr, jackknife), found.n)


def fresh(val: np.ndarray, scored: np.ndarray) -> Fresh:
    """Cross-fit, and cross-fit without each seed."""
    left = [part.sum(0) - part[:, None] - part[None] for part in _parts(val)]
    without = _taken(scored, choose(*left))
    np.fill_diagonal(without, np.nan)
    return Fresh(crossfit(val, scored), without, val.shape[1])
