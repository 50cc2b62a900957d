from itertools import combinations

import numpy as np
import pytest

from truerisk.reports.budget import best_found, chances


def test_every_draw_of_n_trials_by_brute_force():
    draw = np.random.default_rng(0)
    val, unseen = draw.normal(size=(2, 7))
    found = best_found(val, unseen)
    for n in range(1, 8):
        picks = [min(drawn, key=lambda i: val[i]) for drawn in combinations(range(7), n)]
        assert found.val[n - 1] == pytest.approx(val[picks].mean(), rel=1e-10)
        assert found.unseen[n - 1] == pytest.approx(unseen[picks].mean(), rel=1e-10)
        assert found.low[n - 1] == pytest.approx(
            np.quantile(val[picks], 0.25, method="inverted_cdf")
        )
        assert found.high[n - 1] == pytest.approx(
            np.quantile(val[picks], 0.75, method="inverted_cdf")
        )


def test_chances_are_chances_for_many_trials():
    weights = chances(500)
    assert weights.sum(1) == pytest.approx(np.ones(500), rel=1e-9)
    assert weights[-1, 0] == pytest.approx(1.0)


def test_ends():
    found = best_found(np.array([2.0, 1.0, 3.0]), np.array([5.0, 6.0, 7.0]))
    assert found.val[0] == pytest.approx(2.0) and found.val[-1] == pytest.approx(1.0)
    assert found.unseen[0] == pytest.approx(6.0) and found.unseen[-1] == pytest.approx(6.0)
