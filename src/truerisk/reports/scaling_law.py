"""Scaling laws: power laws with an offset through risks over sizes, and what they predict."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from truerisk.core.errors import format_count

HUBER = 1e-3
"""Log residuals above it count linearly, so that one odd size does not bend the law."""
FEWEST_SIZES = 4
"""A law of three numbers passes through fewer, and nothing is left to judge it."""
DECADE = 10.0
RESAMPLES = 100
STEEPEST = 6.0


class PowerLaw(NamedTuple):
    """``E + Σⱼ Aⱼ / nⱼ^αⱼ`` of one size n₁, or of two: parameters N and samples or steps D."""

    offset: float
    factors: np.ndarray
    exponents: np.ndarray

    def predict(self, sizes: np.ndarray) -> np.ndarray:
        """Compute the law at sizes [points, kinds].

        >>> PowerLaw(1.0, np.array([8.0]), np.array([0.5])).predict(np.array([[4.0], [16.0]]))
        array([5., 3.])
        """
        return np.asarray(self.offset + (self.factors * sizes**-self.exponents).sum(1))


class LawEstimate(NamedTuple):
    """A law, and how it varies over the seeds that it was fitted to."""

    law: PowerLaw
    resampled: list[PowerLaw]
    """of as many draws of seeds; empty with one seed"""
    reach: float
    """standard deviations over draws to either end of an interval; nan with one seed"""

    def band(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the 95 % interval of the law at sizes [points, kinds]; nan with one seed."""
        # risks are positive, and their errors nearly in proportion
        middle = np.log(self.law.predict(sizes))
        if not self.resampled:
            return np.full(len(sizes), math.nan), np.full(len(sizes), math.nan)
        spread = np.std([np.log(law.predict(sizes)) for law in self.resampled], axis=0)
        return np.exp(middle - self.reach * spread), np.exp(middle + self.reach * spread)

    def bound_exponent(self, kind: int) -> tuple[float, float]:
        """Compute the 95 % interval of an exponent, cut at 0; nan with one seed."""
        if not self.resampled:
            return math.nan, math.nan
        middle = float(self.law.exponents[kind])
        spread = float(np.std([law.exponents[kind] for law in self.resampled]))
        return max(middle - self.reach * spread, 0.0), middle + self.reach * spread

    def bound_offset(self) -> tuple[float, float]:
        """Compute the 95 % interval of E, cut at 0; nan with one seed."""
        if not self.resampled:
            return math.nan, math.nan
        reach = self.reach * float(np.std([law.offset for law in self.resampled]))
        return max(self.law.offset - reach, 0.0), self.law.offset + reach


class HeldOut(NamedTuple):
    """What a law fitted without the largest size says there, and what was measured."""

    at: np.ndarray
    """the sizes left out, [points, kinds]"""
    estimate: LawEstimate
    predicted: np.ndarray
    low: np.ndarray
    """of the interval in which the measured mean is expected: the law's errors and its own"""
    high: np.ndarray
    measured: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Whether what was measured lies in the interval, for each point."""
        return (self.low <= self.measured) & (self.measured <= self.high)


def find_reach(seeds: int, overlap: float) -> float:
    """Look up how many standard deviations a 95 % interval over seeds reaches to either side.

    Args:
        seeds: how many, or folds.
        overlap: test samples over training samples of folds (Nadeau & Bengio 2003); 0 elsewhere.

    >>> round(find_reach(3, 0.0), 3), find_reach(1, 0.0)
    (4.303, nan)
    """
    return float(stdtrit(seeds - 1, 0.975)) * math.sqrt(1 + seeds * overlap)


def refuse_sizes(sizes: np.ndarray, names: tuple[str, ...]) -> str:
    """Say why no law is fitted to sizes [points, kinds]; empty where one can be.

    >>> refuse_sizes(np.array([[100.0], [200.0], [300.0], [400.0]]), ("num_train",))
    'num_train spans 100 to 400, under a decade'
    """
    for name, column in zip(names, sizes.T, strict=True):
        distinct = np.unique(column)
        if len(distinct) < FEWEST_SIZES:
            return f"{name} has {format_count(len(distinct), 'value')}, fewer than {FEWEST_SIZES}"
        if distinct[-1] < DECADE * distinct[0]:
            return f"{name} spans {distinct[0]:g} to {distinct[-1]:g}, under a decade"
    if len(sizes) < 2 * len(names) + 2:
        return f"{len(sizes)} points do not determine a law of {' and '.join(names)}"
    return ""


def fit_power_law(sizes: np.ndarray, risks: np.ndarray, start: PowerLaw | None = None) -> PowerLaw:
    """Fit ``E + Σⱼ Aⱼ / nⱼ^αⱼ`` by the Huber loss of log residuals.

    The logarithm of the law is ``logsumexp(e, aⱼ − αⱼ·log nⱼ)``, with ``E = exp(e)``
    and ``A = exp(a)``, minimized by L-BFGS from each start of a grid; the lowest minimum counts.

    Args:
        sizes: [points, kinds], positive.
        risks: their mean risks, [points], positive.
        start: begin here alone, as a bootstrap does.

    Returns:
        The law.

    Source: Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", §3.3.
    """
    # half a second's import, which a report without sizes does not need
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    log_sizes, target = np.log(sizes), np.log(risks)
    # sizes about 1: the height and the slope of a term are then nearly independent
    center = log_sizes.mean(0)
    shifted = log_sizes - center
    kinds = sizes.shape[1]
    # an offset of 0 has no logarithm: one this far below the risks is 0
    floor = target.min() - 12.0

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        terms = np.column_stack([
            np.full(len(target), numbers[0]),
            numbers[1 : kinds + 1] - numbers[kinds + 1 :] * shifted,
        ])  # fmt: skip
        fitted = np.logaddexp.reduce(terms, axis=1)
        # in units of the Huber width: the plain loss is so small that L-BFGS stops at its start
        residual = (fitted - target) / HUBER
        pull = np.clip(residual, -1, 1)
        value = np.where(abs(residual) <= 1, residual**2 / 2, abs(residual) - 0.5).sum()
        share = np.exp(terms - fitted[:, None]) * (pull / HUBER)[:, None]
        slope = -(share[:, 1:] * shifted).sum(0)
        # times the width, so that slopes, and with them the first steps, are of the order of 1
        return float(value) * HUBER, np.concatenate([share.sum(0), slope]) * HUBER

    bounds = [(floor, target.min() + 1.0), *[(floor - 12.0, target.max() + 6.0)] * kinds]
    bounds += [(0.0, STEEPEST)] * kinds
    if start is not None:
        heights = np.log(start.factors) - start.exponents * center
        starts = [np.array([math.log(start.offset), *heights, *start.exponents])]
    else:
        slopes = product((0.2, 0.6, 1.5), repeat=kinds)
        starts = [
            np.array([target.min() + e, *[target.mean() - math.log(2)] * kinds, *slope])
            for e, slope in product((-4.0, -0.7, -0.1), slopes)
        ]
    # L-BFGS-B asks for matrices of three numbers, which OpenBLAS shares among all cores
    with threadpool_limits(1, "blas"):
        found = [
            minimize(
                loss, x, jac=True, method="L-BFGS-B", bounds=bounds,
                options={"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-9},
            )
            for x in starts
        ]  # fmt: skip
    best = min(found, key=lambda result: float(result.fun)).x
    exponents = best[kinds + 1 :]
    return PowerLaw(
        float(np.exp(best[0])), np.exp(best[1 : kinds + 1] + exponents * center), exponents
    )


def draw_seeds(seeds: int) -> list[np.ndarray]:
    """Draw rows for a bootstrap: one fewer than there are, which leaves variances unbiased.

    Source: Rao & Wu 1988, "Resampling Inference with Complex Survey Data", §2.
    """
    if seeds < 2:
        return []
    # a report made twice says the same
    generator = np.random.default_rng(0)
    return [generator.integers(seeds, size=seeds - 1) for _ in range(RESAMPLES)]


def estimate_law(sizes: np.ndarray, risks: np.ndarray, overlap: float = 0.0) -> LawEstimate:
    """Fit a law to means over seeds, and again to draws of the seeds.

    A seed is drawn with its risks at all sizes, as nested training sets and shared test samples
    make them alike.

    Args:
        sizes: [points, kinds].
        risks: [seeds, points].
        overlap: as of `find_reach`.

    Returns:
        The law and its resamples.
    """
    law = fit_power_law(sizes, risks.mean(0))
    rows = draw_seeds(len(risks))
    resampled = [fit_power_law(sizes, risks[row].mean(0), law) for row in rows]
    return LawEstimate(law, resampled, find_reach(len(risks), overlap))


def hold_out_largest(sizes: np.ndarray, risks: np.ndarray, overlap: float = 0.0) -> HeldOut | None:
    """Fit a law without the largest size of each kind, and hold it against what was left out.

    Args:
        sizes: [points, kinds].
        risks: [seeds, points].
        overlap: as of `find_reach`.

    Returns:
        The comparison; None where the rest is too little for a fit.
    """
    # of two kinds the largest of either: what remains has seen neither
    left_out = (sizes == sizes.max(0)).any(1)
    rest = sizes[~left_out]
    few = any(len(np.unique(column)) < FEWEST_SIZES - 1 for column in rest.T)
    if few or len(rest) < 2 * sizes.shape[1] + 1:
        return None
    estimate = estimate_law(rest, risks[:, ~left_out], overlap)
    at, measured = sizes[left_out], risks[:, left_out].mean(0)
    predicted = estimate.law.predict(at)
    spread = np.full(len(at), math.nan)
    rows = draw_seeds(len(risks))
    if rows:
        # the same draws as of the fits: what seeds share cancels in the difference
        differences = [
            np.log(risks[row][:, left_out].mean(0)) - np.log(law.predict(at))
            for row, law in zip(rows, estimate.resampled, strict=True)
        ]
        spread = estimate.reach * np.std(differences, axis=0)
    low, high = predicted * np.exp(-spread), predicted * np.exp(spread)
    return HeldOut(at, estimate, predicted, low, high, measured)
