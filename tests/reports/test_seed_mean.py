import math

import numpy as np
import pytest
from scipy import stats

from truerisk.reports.seed_mean import estimate_mean


def test_it_is_the_interval_of_scipy():
    x = np.random.default_rng(0).normal(size=7)
    found = estimate_mean(x)
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-12)
    assert (found.mean, found.stderr) == pytest.approx((x.mean(), stats.sem(x)), rel=1e-12)


def test_one_run_has_a_mean_and_no_interval():
    found = estimate_mean([0.5])
    assert found.mean == 0.5 and found.n == 1
    assert all(math.isnan(v) for v in found[1:4])
    assert math.isnan(estimate_mean([]).mean)


@pytest.mark.parametrize("n", [3, 10])
def test_intervals_cover_in_95_of_100_studies(n):
    draws = np.random.default_rng(n).normal(2.0, 3.0, size=(4000, n))
    covered = np.mean([e.low <= 2.0 <= e.high for e in map(estimate_mean, draws)])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 4000)
