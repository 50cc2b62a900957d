"""Intervals against scipy, and the share of draws in which they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from truerisk.risk.estimate import GroupedEstimate, MeanEstimate, estimate_gap
from truerisk.risk.intervals import bound_proportion, student_bounds, wilson_bounds
from truerisk.risk.measured import Measured


def share(errors, n):
    p = errors / n
    return Measured(p, math.sqrt(p * (1 - p) / (n - 1)), None, n)


@pytest.mark.parametrize(("errors", "n"), [(0, 20), (1, 20), (5, 60), (30, 60), (60, 60)])
def test_wilsons_interval_is_scipys(errors, n):
    right = stats.binomtest(errors, n).proportion_ci(0.95, method="wilson")
    assert wilson_bounds(share(errors, n)) == pytest.approx((right.low, right.high), abs=1e-12)


def exact_coverage(bounds, p, n):
    """The probability that an interval of a binomial share holds p."""
    held = [low <= p <= high for low, high in (bounds(share(k, n)) for k in range(n + 1))]
    return float(stats.binom.pmf(np.arange(n + 1), n, p)[held].sum())


def plain(measured):
    reach = 1.96 * measured.stderr
    return measured.value - reach, measured.value + reach


@pytest.mark.parametrize(
    ("p", "n", "of_plain", "of_wilson"),
    [
        (0.023, 20, 0.37, 0.92),
        (0.026, 20, 0.41, 0.90),
        (5 / 60, 60, 0.88, 0.95),
        (0.3, 200, 0.945, 0.945),
    ],
)
def test_wilsons_interval_holds_a_small_share_where_the_plain_one_does_not(
    p, n, of_plain, of_wilson
):
    assert exact_coverage(plain, p, n) <= of_plain + 0.015
    assert exact_coverage(wilson_bounds, p, n) >= of_wilson


def test_samples_in_groups_count_as_many_as_they_are_worth():
    wrong = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, 1, 0]).repeat_interleave(6)
    groups = torch.arange(10).repeat_interleave(6)
    estimate = GroupedEstimate(10)
    estimate.update(wrong, groups)
    # ten groups of equal samples are ten samples
    assert wilson_bounds(estimate.to_measured()) == pytest.approx(wilson_bounds(share(3, 10)))
    alone = MeanEstimate()
    alone.update(wrong)
    low, high = wilson_bounds(alone.to_measured())
    assert (low, high) == pytest.approx(wilson_bounds(share(18, 60)))


@pytest.mark.parametrize("groups", [2, 3, 5, 10])
def test_wilsons_interval_of_a_few_groups_covers(groups):
    """Each has a share of its own; with the normal's quantile 2 groups cover 61 %, and 5 85 %."""
    draw, held = np.random.default_rng(0), 0
    for shares in draw.binomial(1000, draw.beta(6, 4, (1000, groups))) / 1000:
        stderr = shares.std(ddof=1) / groups**0.5
        low, high = wilson_bounds(Measured(shares.mean(), stderr, None, groups))
        held += low <= 0.6 <= high
    assert 0.93 <= held / 1000 <= 0.97


def test_a_population_known_whole_has_no_interval():
    estimate = MeanEstimate()
    estimate.update(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    whole = estimate.to_measured(population=4)
    assert whole.size is None and wilson_bounds(whole) == (0.25, 0.25)
    assert student_bounds(whole) == (0.25, 0.25)
    assert all(map(math.isnan, wilson_bounds(Measured(0.2, None))))


def test_students_interval_is_scipys():
    x = np.random.default_rng(0).normal(size=12)
    measured = Measured(float(x.mean()), float(x.std(ddof=1) / math.sqrt(12)), None, 12)
    right = stats.t.interval(0.95, 11, loc=x.mean(), scale=stats.sem(x))
    assert student_bounds(measured) == pytest.approx(right)


@pytest.mark.parametrize(("n", "expected"), [(20, 0.873), (60, 0.915), (200, 0.938)])
def test_how_often_an_interval_of_a_risk_holds_it(n, expected):
    """Cross-entropies have a heavy tail: docs/statistics.md tells these shares."""
    draw = np.random.default_rng(1)
    # logistic losses of scores N(2, 4): mean and skewness as of a trained classifier's
    losses = np.log1p(np.exp(-draw.normal(2, 2, size=(20_000, n))))
    truth = np.log1p(np.exp(-draw.normal(2, 2, size=4_000_000))).mean()
    mean, se = losses.mean(1), losses.std(1, ddof=1) / math.sqrt(n)
    reach = stats.t.ppf(0.975, n - 1)
    held = float((np.abs(mean - truth) <= reach * se).mean())
    assert held == pytest.approx(expected, abs=0.01)
    assert held > float((np.abs(mean - truth) <= 1.96 * se).mean())


def train_logistic(draw, n, studies=300, width=10, epochs=20):
    """Gap, its error and the truth at the epoch with the lowest validation risk, of n samples each.

    Logistic regression by gradient descent; f is the risk on 5,000 others.
    """
    teacher = np.full(width, 2 / math.sqrt(width))

    def sample(*shape):
        x = draw.normal(size=(*shape, width))
        return x * np.where(draw.random(shape) < 1 / (1 + np.exp(-x @ teacher)), 1, -1)[..., None]

    train, val, fresh = sample(studies, n), sample(studies, n), sample(5000)
    w, lowest = np.zeros((studies, width)), np.full(studies, np.inf)
    found = np.zeros((4, studies))
    for _ in range(epochs):
        for _ in range(6):
            slope = -1 / (1 + np.exp(np.einsum("smd,sd->sm", train, w)))
            w = w - np.einsum("sm,smd->sd", slope, train) / n
        known = np.logaddexp(0, -np.einsum("smd,sd->sm", train, w)).mean(1)
        losses = np.logaddexp(0, -np.einsum("smd,sd->sm", val, w))
        mean, error = losses.mean(1), losses.std(1, ddof=1) / math.sqrt(n)
        truth = np.logaddexp(0, -w @ fresh.T).mean(1)
        better, lowest = mean < lowest, np.minimum(mean, lowest)
        found = np.where(better, [truth, known, mean, error], found)
    return found


@pytest.mark.parametrize(
    ("n", "least", "bias"), [(20, 0.87, -0.55), (60, 0.90, -0.2), (200, 0.92, 0)]
)
def test_how_often_the_gap_at_the_kept_epoch_is_held(n, least, bias):
    """docs/statistics.md tells these shares: that epoch was chosen on the same samples."""
    held, normal, away = [], [], []
    for truth, known, mean, error in train_logistic(np.random.default_rng(n), n).T:
        gap = estimate_gap(Measured(known, 0.0, 3), Measured(mean, error, 3, n))
        low, high = student_bounds(gap)
        held.append(low <= truth - known <= high)
        normal.append(abs(gap.value - (truth - known)) <= 1.96 * gap.stderr)
        away.append((mean - truth) / error)
    assert least <= np.mean(held) <= 0.97 and np.mean(held) >= np.mean(normal)
    assert np.mean(away) == pytest.approx(bias, abs=0.2)


def test_wilsons_interval_of_a_share_of_some_samples_covers():
    """Recall of 0.9 over about 30 positives of 200, with the error that influences have."""
    draw, n, held, told = np.random.default_rng(0), 200, 0, 0
    for _ in range(3000):
        positives = draw.binomial(n, 0.15)
        p = draw.binomial(positives, 0.9) / positives
        stderr = (p * (1 - p) / positives * n / (n - 1)) ** 0.5
        bounds = bound_proportion("metric/recall/test", Measured(p, stderr, None, n))
        if bounds is not None:
            told += 1
            held += bounds[0] <= 0.9 <= bounds[1]
        else:
            assert p == 1
    assert told > 2800 and 0.935 < held / told < 0.97
    assert bound_proportion("metric/f1/test", Measured(0.9, 0.1, None, n)) is None
    exact = Measured(1.0, 0.0, None, 20)
    assert bound_proportion("metric/accuracy/test", exact)[0] == pytest.approx(0.8389, abs=1e-4)
