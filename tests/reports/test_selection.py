import math

import numpy as np
import pytest
from scipy import integrate, stats

from truerisk.reports.selection import crossfit, pick, select


def expected_lowest(k):
    """E of the least of k standard normal numbers, by quadrature."""
    density = lambda x: x * k * stats.norm.pdf(x) * stats.norm.sf(x) ** (k - 1)  # noqa: E731
    return integrate.quad(density, -10, 10)[0]


def test_the_winners_curse_is_what_it_should_be(synthetic):
    """k equal recipes: the pick looks better by E[min]·σ/√n, and cross-fitting says so."""
    k, n, studies = 6, 5, 400
    draw, shown, optimism, fresh = np.random.default_rng(0), [], [], []
    for _ in range(studies):
        val, test = draw.normal(1.0, 1.0, size=(2, k, n))
        table = {i: np.stack([val[i], val[i], test[i]], 1) for i in range(k)}
        found = select(synthetic.study(table).problems[0])
        shown.append(found.val.mean)
        optimism.append(found.optimism)
        fresh.append(found.crossfit)
    curse = -expected_lowest(k) / math.sqrt(n)
    assert np.mean(shown) == pytest.approx(1 - curse, abs=0.06)
    assert np.mean(optimism) == pytest.approx(curse, abs=4 * np.std(optimism) / math.sqrt(studies))
    covered = np.mean([f.low <= 1.0 <= f.high for f in fresh])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / studies)


def test_a_recipe_that_diverged_once_is_not_picked():
    val = np.array([[0.1, 0.5, 0.4], [math.inf, 0.5, 0.7]])
    assert pick(val) == 1
    assert pick(np.array([[math.inf, 0.1], [0.5, math.inf], [0.6, math.inf]])) == 0
    assert pick(np.full((2, 2), math.inf)) is None
    assert pick(np.array([[math.nan, 0.9]])) == 1


def test_the_test_risk_plays_no_part_in_the_pick(synthetic):
    val, test = [0.4, 0.5, 0.6], [0.9, 0.8, 0.7]
    other_val, other_test = [0.5, 0.6, 0.7], [0.1, 0.1, 0.1]
    table = {1: np.stack([val, val, test], 1), 2: np.stack([other_val, other_val, other_test], 1)}
    found = select(synthetic.study(table).problems[0])
    assert found.recipe.label == "lr=1" and found.among == 2
    assert found.unseen.mean == pytest.approx(0.8)
    assert found.difference.mean == pytest.approx(0.3)
    assert found.optimism == pytest.approx(0.0)


def test_crossfitting_uses_no_seed_twice():
    """A recipe that is best on one seed alone is never scored there."""
    val = np.array([[0.0, 1.0], [3.0, 1.0], [3.0, 1.0]])
    assert crossfit(val, val).tolist() == [1.0, 1.0, 1.0]
    assert crossfit(val[:1], val[:1]).tolist() == [0.0]


def test_nothing_to_pick_from(synthetic):
    runs = [synthetic.run(0, status="failed")]
    from truerisk.reports.collect import Collected
    from truerisk.reports.study import build

    assert select(build(Collected(runs, [])).problems[0]) is None
