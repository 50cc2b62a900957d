"""Intervals of what was measured on samples: Student's of means, Wilson's of shares."""

from __future__ import annotations

import math

from truerisk.risk.measured import Measured

LEVEL = 0.95
"""The coverage of every interval that is shown."""
SHARES = ("error/", "metric/accuracy/", "metric/top_k/")
"""How the names begin of what is a share of all samples."""
PARTIAL_SHARES = ("metric/recall/", "metric/precision/", "metric/balanced_accuracy/")
"""Shares of some samples, or means of such: of how many, only the standard error tells."""
_F1 = ("f1", "f1_macro", "f1_micro", "f1_per_class")
RANGES = {
    **dict.fromkeys((*SHARES, *PARTIAL_SHARES), (0.0, 1.0)),
    **{f"metric/{name}/": (0.0, 1.0) for name in (*_F1, "roc_auc", "average_precision")},
    **{f"metric/{name}/": (-1.0, 1.0) for name in ("kappa", "matthews", "spearman")},
    **{f"metric/{name}/": (0.0, math.inf) for name in ("mae", "rmse", "mape", "calibration_error")},
    "metric/brier/": (0.0, 2.0),
    "metric/perplexity/": (1.0, math.inf),
    "metric/r2/": (-math.inf, 1.0),
}
"""The least and the largest that a quantity can be, by how its name begins."""


def find_range(name: str) -> tuple[float, float]:
    """Return the least and the largest that a measured quantity can be, infinite where unknown.

    >>> find_range("metric/kappa/test"), find_range("risk/test")
    ((-1.0, 1.0), (-inf, inf))
    """
    found = (limits for begin, limits in RANGES.items() if name.startswith(begin))
    return next(found, (-math.inf, math.inf))


def bound_proportion(name: str, measured: Measured) -> tuple[float, float] | None:
    """Return Wilson's interval of what is a share by its name; None of others, or where unknown.

    Args:
        name: such as ``metric/accuracy/test``.
        measured: its value.
    """
    # all or none of an unknown number of samples tell no interval
    partial = name.startswith(PARTIAL_SHARES) and measured.stderr and 0 < measured.value < 1
    if measured.size is None or not (name.startswith(SHARES) or partial):
        return None
    low, high = wilson_bounds(measured)
    return (low, high) if math.isfinite(low) else None


def find_quantile(freedom: float, level: float = LEVEL) -> float:
    """Return how many standard errors an interval reaches to each side.

    Args:
        freedom: degrees of freedom of the standard error; infinite for the normal's.
        level: the coverage.

    Source: Student, "The Probable Error of a Mean" (1908).

    >>> round(find_quantile(19), 3), round(find_quantile(math.inf), 3)
    (2.093, 1.96)
    """
    # not scipy.stats, which takes four times as long to import
    from scipy.special import ndtri, stdtrit

    if math.isinf(freedom):
        return float(ndtri((1 + level) / 2))
    return float(stdtrit(freedom, (1 + level) / 2))


def student_bounds(measured: Measured, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval ``m ± t(n − 1) se`` of a mean over n samples.

    Args:
        measured: with the number of samples, if it is known; else the normal's quantile.
        level: the coverage.

    Returns:
        Both ends; the value itself where it is exact, nan where there is no standard error.
    """
    if measured.stderr is None:
        return math.nan, math.nan
    freedom = math.inf if measured.size is None else measured.size - 1
    if freedom < 1:
        return math.nan, math.nan
    reach = find_quantile(freedom, level) * measured.stderr
    return measured.value - reach, measured.value + reach


def wilson_bounds(share: Measured, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval of a share that was measured on samples.

    ``(p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)``, the shares that p does not contradict.
    Near 0 and 1 the interval p ± 1.96 se holds far less than 95 %, and of no errors among n it is a
    point. Samples that depend on each other, or have shares of their own such as those of labels
    and tokens, count as so many as their standard error is worth, p(1 − p)/se², and z is Student's
    quantile, as that standard error is an estimate.

    Args:
        share: from 0 to 1, with its standard error and number of samples.
        level: the coverage.

    Returns:
        Both ends; the share itself where it is exact, nan where nothing is known of its samples.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927);
    Brown, Cai & DasGupta, "Interval Estimation for a Binomial Proportion" (2001); for the size,
    Korn & Graubard, "Confidence Intervals for Proportions with Small Expected Number of Positive
    Counts Estimated From Survey Data" (1998).

    >>> [round(end, 4) for end in wilson_bounds(Measured(0.0, 0.0, None, 20))]
    [0.0, 0.1611]
    """
    p, n = share.value, share.size
    if share.stderr is None or not math.isfinite(p):
        return math.nan, math.nan
    if n is None:  # the whole population, or a summary of an earlier version
        return (p, p) if share.stderr == 0 else student_bounds(share, level)
    if n < 1:
        return math.nan, math.nan
    spread, worth, freedom = p * (1 - p), float(n), math.inf
    if n > 1 and share.stderr > 0 and spread > 0:
        estimated = spread / share.stderr**2
        # n zeros and ones have this of n − 1, by which their variance is divided
        if not math.isclose(estimated, n - 1, rel_tol=1e-4):
            worth, freedom = estimated, n - 1
    z = find_quantile(freedom, level)
    middle = (p + z * z / (2 * worth)) / (1 + z * z / worth)
    reach = z / (1 + z * z / worth) * math.sqrt(max(spread, 0.0) / worth + (z / worth) ** 2 / 4)
    # rounding may leave the ends a hair outside
    return max(0.0, middle - reach), min(1.0, middle + reach)
