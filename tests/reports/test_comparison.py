import math

import numpy as np
import pytest
from scipy import stats

from truerisk.reports.comparison import (
    adjust_comparisons,
    adjust_holm,
    compare_pairs,
    compare_recipes,
    describe_verdict,
    estimate_improvement,
)
from truerisk.reports.cross_fitting import select_recipe

STUDIES = 3000
ERROR = 3 * math.sqrt(0.05 * 0.95 / STUDIES)
"""Three standard errors of a rate of 5 %."""


def by_seed(values, first=0):
    return {first + i: float(v) for i, v in enumerate(values)}


def rate(pairs):
    """How often two recipes are called different."""
    told = [
        describe_verdict(adjust_comparisons([compare_recipes("a", "b", a, b)])[0]) for a, b in pairs
    ]
    assert set(told) <= {"lower", "higher", "no difference shown"}
    return np.mean([t != "no difference shown" for t in told])


def test_the_same_recipe_twice_is_called_different_in_5_of_100_studies():
    draw = np.random.default_rng(0)
    seeds = draw.normal(size=(STUDIES, 5, 1))  # what a seed does to both
    risks = seeds + 0.3 * draw.normal(size=(STUDIES, 5, 2))
    assert abs(rate((by_seed(r[:, 0]), by_seed(r[:, 1])) for r in risks) - 0.05) < ERROR


def test_and_so_it_is_without_shared_seeds_and_at_unequal_spread():
    draw = np.random.default_rng(1)
    pairs = (
        (by_seed(draw.normal(0, 1, 6)), by_seed(draw.normal(0, 4, 12), first=100))
        for _ in range(STUDIES)
    )
    assert abs(rate(pairs) - 0.05) < 1.5 * ERROR  # Welch's test is an approximation


def test_and_no_more_often_where_risks_are_skewed():
    risks = np.random.default_rng(2).lognormal(0, 1, size=(STUDIES, 5, 2))
    assert rate((by_seed(r[:, 0]), by_seed(r[:, 1])) for r in risks) < 0.05 + ERROR


@pytest.mark.parametrize("recipes", [4, 14])
def test_a_study_of_one_recipe_many_times_finds_a_winner_in_5_of_100(synthetic, recipes):
    """The pick is compared with the others, on test risks that go with its validation risks."""
    draw, called, studies = np.random.default_rng(recipes), 0, 200
    for _ in range(studies):
        val = draw.normal(size=(recipes, 5))
        test = 0.7 * val + 0.3 * draw.normal(size=(recipes, 5))
        table = {i: np.stack([v, v, t], 1) for i, (v, t) in enumerate(zip(val, test, strict=True))}
        problem = synthetic.study(table).problems[0]
        found = compare_pairs(problem, "risk/test", select_recipe(problem).recipe)
        called += any(describe_verdict(c) in ("lower", "higher") for c in found)
    assert called / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_intervals_cover_the_difference_and_a_planted_one_is_found_as_often_as_it_should_be():
    """The power of the paired test is known in closed form: the noncentral t distribution."""
    n, planted, studies = 8, -0.5, 1500
    draw = np.random.default_rng(3)
    found = []
    for _ in range(studies):
        shared = draw.normal(0, 5, n)
        b = shared + draw.normal(0, 0.3, n)
        a = shared + planted + draw.normal(0, 0.4, n)
        found += adjust_comparisons([compare_recipes("a", "b", by_seed(a), by_seed(b))])
    covered = np.mean([c.difference.low <= planted <= c.difference.high for c in found])
    lower = np.mean([describe_verdict(c) == "lower" for c in found])
    power = stats.nct.cdf(stats.t.ppf(0.025, n - 1), n - 1, planted / 0.5 * math.sqrt(n))
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / studies)
    assert abs(lower - power) < 3 * math.sqrt(power * (1 - power) / studies)
    assert not any(describe_verdict(c) == "higher" for c in found)


def test_p_values_are_those_of_scipy():
    a, b = np.random.default_rng(4).normal(size=(2, 6))
    paired = compare_recipes("a", "b", by_seed(a), by_seed(b))
    assert paired.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    assert paired.paired and paired.difference.n == 6
    apart = compare_recipes("a", "b", by_seed(a), by_seed(b, first=10))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert apart.p == pytest.approx(welch.pvalue, rel=1e-10)
    assert apart.difference[2:4] == pytest.approx(tuple(welch.confidence_interval()), rel=1e-10)
    assert not apart.paired and math.isnan(apart.wins)


def test_seeds_without_a_partner_do_not_count():
    a, b = {0: 1.0, 1: 2.0, 2: 9.0}, {0: 1.5, 1: 2.6, 5: -40.0}
    found = compare_recipes("a", "b", a, b)
    assert found.difference.n == 2 and found.difference.mean == pytest.approx(-0.55)
    assert found.wins == 1.0


def test_holm_by_hand():
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.4, 0.6]) == [0.8, 0.8]
    assert adjust_holm([0.9, 0.7]) == [1.0, 1.0]
    assert adjust_holm([0.01, 0.02], family=10) == pytest.approx([0.1, 0.18])


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([1, 2, 3], [1, 2, 3], "the same in every run"),
        ([1, 2, 3], [2, 3, 4], "differ by the same in every run"),
        ([1], [2], "too few runs to tell"),
        ([1, 2, 3], [2.1, 2.9, 4.0], "lower"),
        ([2.1, 2.9, 4.0], [1, 2, 3], "higher"),
        ([1, 2, 3], [2, 1, 3.1], "no difference shown"),
    ],
)
def test_words_follow_the_numbers(a, b, words):
    assert (
        describe_verdict(adjust_comparisons([compare_recipes("a", "b", by_seed(a), by_seed(b))])[0])
        == words
    )


def test_what_the_adjustment_takes_back_is_said():
    found = compare_recipes("a", "b", by_seed([1, 2, 3.0]), by_seed([2.1, 2.9, 4.0]))
    assert (
        describe_verdict(adjust_comparisons([found], family=50)[0])
        == "not shown after adjustment for 50 comparisons"
    )


def test_effects_are_unbiased():
    """Hedges' correction: the mean over studies is the difference in standard deviations."""
    draw = np.random.default_rng(5)
    effects = [
        compare_recipes(
            "a", "b", by_seed(draw.normal(1, 1, 5)), by_seed(draw.normal(0, 1, 5), 9)
        ).effect
        for _ in range(800)
    ]
    assert np.mean(effects) == pytest.approx(1.0, abs=3 * np.std(effects) / math.sqrt(800))


def test_the_probability_of_improvement_is_mann_whitney():
    a, b = np.random.default_rng(6).integers(0, 5, size=(2, 9)).astype(float)
    u = stats.mannwhitneyu(b, a).statistic
    found = estimate_improvement(a, b)
    assert found.probability == pytest.approx(u / 81)
    assert found.low <= found.probability <= found.high


def test_its_interval_covers():
    """For normal risks P(A < B) = Φ(δ/√2)."""
    draw = np.random.default_rng(7)
    for truth in (0.64, 0.9):
        shift = math.sqrt(2) * stats.norm.ppf(truth)
        for n in (3, 5, 10):
            pairs = ((draw.normal(0, 1, n), draw.normal(shift, 1, n)) for _ in range(500))
            found = [estimate_improvement(a, b) for a, b in pairs]
            covered = np.mean([f.low <= truth <= f.high for f in found])
            assert 0.92 < covered < 0.985, (truth, n)


def test_a_run_that_diverged_loses():
    lost = np.array([math.inf, 1.0])
    assert estimate_improvement(lost, np.array([2.0, 2.0])).probability == 0.5
    assert estimate_improvement(lost, np.array([math.inf])).probability == 0.75


def test_wins_and_improvement_count_in_the_direction_that_is_better():
    a, b = by_seed([0.9, 0.8, 0.7, 0.95]), by_seed([0.5, 0.6, 0.75, 0.55])
    low, high = compare_recipes("a", "b", a, b), compare_recipes("a", "b", a, b, higher=True)
    assert high.wins == 0.75 == 1 - low.wins
    assert high.improvement.probability == 1 - low.improvement.probability == 15 / 16
    assert high.improvement.low == pytest.approx(1 - low.improvement.high)
    assert high.difference == low.difference
    lost = (a | {9: -math.inf}, b)  # a run that diverged is worse than any
    assert compare_recipes("a", "b", a, b, lost, higher=True).improvement.probability == 15 / 20
