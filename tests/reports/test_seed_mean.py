import math

import numpy as np
import pytest
from scipy import stats

from truerisk.reports.findings import format_mean
from truerisk.reports.learning_problem import find_limits
from truerisk.reports.seed_mean import (
    Limits,
    bound_share,
    bound_skewed,
    estimate_columns,
    estimate_mean,
    student_interval,
)


def test_it_is_the_interval_of_scipy():
    x = np.random.default_rng(0).normal(size=7)
    found = estimate_mean(x)
    interval = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-12)
    assert (found.mean, found.stderr) == pytest.approx((x.mean(), stats.sem(x)), rel=1e-12)


def test_what_rounding_leaves_between_equal_values_is_no_spread():
    values = [0.44186046511627913, 0.44186046511627908, 0.44186046511627902]
    assert len(set(values)) > 1
    found = estimate_mean(values)
    assert found.stderr == 0 and found.low == found.high == found.mean
    assert format_mean(found) == "0.4419"
    mean, low, high = estimate_columns(np.array(values)[:, None])
    assert low == high == mean
    # what is small but not of rounding is kept
    assert estimate_mean([1.0, 1.0 + 1e-12, 1.0 - 1e-12]).stderr > 0


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


def test_the_transformation_is_halls():
    x = np.random.default_rng(0).exponential(size=12)
    _, (low,), (high,) = estimate_columns(x[:, None])
    t, a = stats.t.ppf(0.975, 11), stats.skew(x, bias=False) / math.sqrt(12)
    for bound, quantile in ((low, t), (high, -t)):
        y = (x.mean() - bound) / stats.sem(x)
        assert y + a * y**2 / 3 + a**2 * y**3 / 27 + a / 6 == pytest.approx(quantile)
    assert bound_skewed(1.0, 0.1, 9, 0.0) == pytest.approx(student_interval(1.0, 0.1, 9))
    # of seven values Student's stands
    found = estimate_mean(x[:7])
    assert estimate_columns(x[:7, None])[1:] == (
        pytest.approx(found.low),
        pytest.approx(found.high),
    )


@pytest.mark.parametrize(("n", "of_student", "at_least"), [(10, 0.84, 0.90), (20, 0.87, 0.92)])
def test_intervals_of_skewed_risks(n, of_student, at_least):
    """Lognormal, of skewness 6, somewhat worse than risks of overfitted networks are."""
    draws, truth = np.random.default_rng(n).lognormal(size=(n, 8000)), math.exp(0.5)
    mean, low, high = estimate_columns(draws)
    held = np.mean((low <= truth) & (truth <= high))
    low, high = student_interval(mean, draws.std(0, ddof=1) / math.sqrt(n), n - 1)
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(of_student, abs=0.02)
    assert held >= at_least


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("share", "of_student"), [(0.03, 0.91), (0.3, 0.96)])
def test_intervals_of_errors_over_seeds(seeds, share, of_student):
    draw, n = np.random.default_rng(seeds), 30
    # the error of a seed's classifier, measured on thirty samples
    true = draw.beta(30 * share, 30 * (1 - share), size=(seeds, 8000))
    errors = draw.binomial(n, true) / n
    mean, low, high = estimate_columns(errors, Limits(0, 1, n))
    assert low.min() >= 0 and high.max() <= 1
    held = np.mean((low <= share) & (share <= high))
    assert held > 0.925
    stderr = errors.std(0, ddof=1) / math.sqrt(seeds)
    low, high = student_interval(mean, stderr, seeds - 1)
    plain = np.mean((low <= share) & (share <= high))
    assert plain <= of_student and plain < held + 0.01


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("area", "of_student"), [(0.8, 0.96), (0.99, 0.91)])
def test_intervals_of_areas_over_seeds_stay_within_their_range(seeds, area, of_student):
    """Areas under the ROC curve of normal scores, twenty samples a class."""
    draw, n = np.random.default_rng(seeds), 20
    scores = draw.normal(size=(seeds, 3000, 2 * n))
    scores[..., :n] += math.sqrt(2) * stats.norm.ppf(area)
    ranks = scores.argsort(-1).argsort(-1)[..., :n].sum(-1)
    areas = (ranks - n * (n - 1) / 2) / n**2
    limits = find_limits([], "metric/roc_auc/test")._replace(size=2 * n)
    mean, low, high = estimate_columns(areas, limits)
    assert low.min() >= 0 and high.max() <= 1
    held = np.mean((low <= area) & (area <= high))
    assert 0.935 < held < 0.995
    low, high = student_interval(mean, areas.std(0, ddof=1) / math.sqrt(seeds), seeds - 1)
    plain = np.mean((low <= area) & (area <= high))
    assert plain <= of_student and plain < held + 0.01 and (high > 1).any()


def test_an_interval_ends_where_its_quantity_does():
    bounds = {}
    for name in ("kappa", "r2", "rmse", "perplexity", "mine"):
        values = np.array([[0.5], [0.99]])
        _, (low,), (high,) = estimate_columns(values, find_limits([], f"metric/{name}/test"))
        bounds[name] = low, high
    plain = estimate_mean([0.5, 0.99])
    assert bounds["mine"] == pytest.approx((plain.low, plain.high)) and plain.high > 1
    assert bounds["r2"] == pytest.approx((plain.low, 1)) and plain.low < -1
    assert bounds["rmse"] == pytest.approx((0, plain.high))
    assert bounds["perplexity"] == pytest.approx((1, plain.high))
    # of −1 to 1, twice the interval of the share of the way
    ends = bound_share((1 + plain.mean) / 2, plain.stderr / 2, 1, math.inf)
    assert bounds["kappa"] == pytest.approx([2 * end - 1 for end in ends])
    assert bounds["kappa"][0] > -1 and bounds["kappa"][1] < 1


def test_the_interval_of_a_share_is_wilsons():
    right = stats.binomtest(5, 60).proportion_ci(0.95, method="wilson")
    p = 5 / 60
    found = bound_share(p, math.sqrt(p * (1 - p) / 60), 1e9, 60)
    assert found == pytest.approx((right.low, right.high))
    none = stats.binomtest(0, 60).proportion_ci(0.95, method="wilson")
    assert bound_share(0.0, 0.0, 1e9, 60) == pytest.approx((none.low, none.high), abs=1e-9)
    # where the number of samples is not known nothing is made up
    assert bound_share(0.0, 0.0, 2, math.inf) == (0.0, 0.0)
    assert bound_share(1.5, 0.1, 9, 30) == pytest.approx(student_interval(1.5, 0.1, 9))
    assert all(map(math.isnan, bound_share(0.1, math.nan, 0, 30)))
