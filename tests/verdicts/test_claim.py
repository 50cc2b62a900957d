"""Verdicts against ranges fixed beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truerisk.verdicts import Finding, Runs, claim, exact_finding, mean_finding


def judged(finding, **tolerance):
    @claim("", source="", why="", **tolerance)
    def made(_runs: Runs) -> Finding:
        return finding

    return made.judge_finding(made.measure(Runs([])))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.96, 1.04, "holds"),
        (0.95, 1.05, "holds"),
        (0.94, 1.04, "inconclusive"),
        (1.04, 1.2, "inconclusive"),
        (0.5, 1.5, "inconclusive"),
        (1.06, 1.2, "does not hold"),
        (0.5, 0.9, "does not hold"),
        (math.nan, math.nan, "inconclusive"),
    ],
)
def test_the_interval_against_the_range(low, high, verdict):
    assert judged(Finding(1.0, low, high), low=0.95, high=1.05) == verdict


def test_a_bound_on_one_side():
    assert judged(exact_finding(0.0), high=1e-9) == "holds"
    assert judged(exact_finding(1e-8), high=1e-9) == "does not hold"
    assert judged(exact_finding(3.0), low=2.0) == "holds"
    assert judged(exact_finding(math.inf), low=2.0) == "holds"
    assert judged(exact_finding(math.nan), low=2.0) == "inconclusive"


def test_the_interval_of_a_mean_covers():
    """Student's interval holds the mean of a normal population in 95 % of samples of five."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    intervals = [mean_finding(sample) for sample in draws]
    covered = np.mean([f.low <= 3.0 <= f.high for f in intervals])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_repetition_decides_nothing():
    assert math.isnan(mean_finding([1.0]).low)
    assert judged(mean_finding([1.0]), expected=1.0, within=0.5) == "inconclusive"
    assert judged(mean_finding([1.0, math.nan, 1.0]), expected=1.0, within=0.5) == "inconclusive"
