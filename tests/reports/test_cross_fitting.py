import math

import numpy as np
import pytest
from scipy import integrate, stats

from truerisk.reports.comparison import describe_verdict
from truerisk.reports.cross_fitting import (
    TunedMethod,
    compare_methods,
    cross_fit,
    cross_fit_scores,
    pick_column,
    select_recipe,
)
from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import CollectedRuns


def expected_lowest(k):
    """E of the least of k standard normal numbers, by quadrature."""

    def weigh(x):
        return x * k * stats.norm.pdf(x) * stats.norm.sf(x) ** (k - 1)

    return integrate.quad(weigh, -10, 10)[0]


def test_the_winners_curse_is_what_it_should_be(synthetic):
    """k equal recipes: the pick looks better by E[min]·σ/√n, and cross-fitting says so."""
    k, n, studies = 6, 5, 400
    draw, shown, optimism, fresh = np.random.default_rng(0), [], [], []
    for _ in range(studies):
        val, test = draw.normal(1.0, 1.0, size=(2, k, n))
        table = {i: np.stack([val[i], val[i], test[i]], 1) for i in range(k)}
        found = select_recipe(synthetic.study(table).problems[0])
        shown.append(found.val.mean)
        optimism.append(found.optimism)
        fresh.append(found.cross_fitted.estimate_mean())
    curse = -expected_lowest(k) / math.sqrt(n)
    assert np.mean(shown) == pytest.approx(1 - curse, abs=0.06)
    assert np.mean(optimism) == pytest.approx(curse, abs=4 * np.std(optimism) / math.sqrt(studies))
    covered = np.mean([f.low <= 1.0 <= f.high for f in fresh])
    assert covered > 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)  # the jackknife is cautious


def test_a_recipe_that_diverged_once_is_not_picked():
    val = np.array([[0.1, 0.5, 0.4], [math.inf, 0.5, 0.7]])
    assert pick_column(val) == 1
    assert pick_column(np.array([[math.inf, 0.1], [0.5, math.inf], [0.6, math.inf]])) == 0
    assert pick_column(np.full((2, 2), math.inf)) is None
    assert pick_column(np.array([[math.nan, 0.9]])) == 1


def test_the_test_risk_plays_no_part_in_the_pick(synthetic):
    val, test = [0.4, 0.5, 0.6], [0.9, 0.8, 0.7]
    other_val, other_test = [0.5, 0.6, 0.7], [0.1, 0.1, 0.1]
    table = {1: np.stack([val, val, test], 1), 2: np.stack([other_val, other_val, other_test], 1)}
    found = select_recipe(synthetic.study(table).problems[0])
    assert found.recipe.label == "lr=1" and found.among == 2
    assert found.unseen.mean == pytest.approx(0.8)
    assert found.difference.mean == pytest.approx(0.3)
    assert found.optimism == pytest.approx(0.0)


def test_crossfitting_uses_no_seed_twice():
    """A recipe that is best on one seed alone is never scored there."""
    val = np.array([[0.0, 1.0], [3.0, 1.0], [3.0, 1.0]])
    assert cross_fit_scores(val, val).tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(cross_fit_scores(val[:1], val[:1])).all()  # one seed picks nothing for itself
    assert cross_fit_scores(val[:1, :1], val[:1, :1]).tolist() == [
        0.0
    ]  # where nothing is to be picked


def test_without_each_seed_by_brute_force():
    draw = np.random.default_rng(3)
    val = np.where(draw.random((6, 4)) < 0.1, math.inf, draw.normal(size=(6, 4)))
    val[2, 1] = math.nan
    test = draw.normal(size=(6, 4))
    for i in range(6):
        rest = np.arange(6) != i
        expected = cross_fit_scores(val[rest], test[rest])
        assert np.array_equal(cross_fit(val, test).without[i][rest], expected, equal_nan=True)
        best = [pick_column(np.delete(val[rest], j, 0)) for j in range(5)]
        assert np.array_equal(expected, test[rest][np.arange(5), best])


@pytest.mark.parametrize(("n", "k", "share"), [(4, 5, 0.7), (10, 6, 0.7), (8, 4, 1.0)])
def test_equal_methods_that_were_tuned_are_called_different_in_at_most_5_of_100(n, k, share):
    """With s/√n alone it would be 7 to 25 of 100: picks share seeds."""
    draw, called, studies = np.random.default_rng(n), 0, 400
    for _ in range(studies):
        val = draw.normal(size=(n, 2 * k))
        test = share * val + math.sqrt(1 - share**2) * draw.normal(size=(n, 2 * k))
        halves = (slice(0, k), slice(k, None))
        methods = [
            TunedMethod("ab"[i], k, None, cross_fit(val[:, h], test[:, h]), list(range(n)))
            for i, h in enumerate(halves)
        ]
        called += describe_verdict(compare_methods(methods)[0]) in ("lower", "higher")
    assert called / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_where_the_pick_is_clear_tuning_costs_no_certainty():
    draw = np.random.default_rng(5)
    val = draw.normal(size=(6, 3)) * 0.01 + np.array([0.0, 1.0, 2.0])
    plain = cross_fit(val[:, :1], val[:, :1]).estimate_mean()
    tuned = cross_fit(val, val).estimate_mean()
    assert tuned == pytest.approx(plain, rel=1e-9)
    assert math.isnan(cross_fit(val[:2], val[:2]).estimate_mean().stderr)


def test_nothing_to_pick_from(synthetic):
    runs = [synthetic.run(0, status="failed")]
    assert select_recipe(build_study(CollectedRuns(runs, [])).problems[0]) is None
