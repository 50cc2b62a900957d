import math
from itertools import combinations

import numpy as np
import pytest

from truerisk.reports.charts import (
    average_curves,
    chart_swept_number,
    chart_trials,
    rank_recipes,
)
from truerisk.reports.findings import analyze_problem, list_warnings
from truerisk.reports.learning_problem import build_study
from truerisk.reports.run_records import CollectedRuns
from truerisk.reports.seed_mean import estimate_columns, estimate_mean
from truerisk.reports.tuning_curves import (
    best_of_n_probabilities,
    compute_sensitivity,
    count_steps,
    expect_best,
    map_risk,
    performance_profile,
    profile_number,
)


@pytest.fixture
def problem(synthetic):
    """Two rates by two widths, two seeds; the highest rate diverges at the larger width."""
    runs = []
    for lr in (0.1, 1.0):
        for width in (10, 20):
            for seed in range(2):
                config = {**synthetic.config(lr=lr, seed=seed), "model": {"width": width}}
                lost = (lr, width) == (1.0, 20)
                risk = lr + width / 100 + 0.01 * seed
                summary = {"risk/val": risk, "risk/test": risk + 1}
                curve = [2.0, math.nan] if lost else [2.0, risk + 0.1, risk]
                status = "diverged" if lost else "finished"
                runs.append(synthetic.run(seed, summary, status, curve, config))
    return build_study(CollectedRuns(runs, [])).problems[0]


def test_a_swept_number_is_shown_at_the_best_of_the_others(problem):
    points = profile_number(problem, problem.recipes, "optimizer.lr")
    assert [p.at for p in points] == [0.1, 1.0]
    assert [p.val.mean for p in points] == pytest.approx([0.205, 1.105])
    assert [p.unseen.mean for p in points] == pytest.approx([1.205, 2.105])
    assert [p.diverged for p in points] == [0.0, 0.5]


def test_sensitivity_where_one_of_two_values_is_worse(problem):
    points = profile_number(problem, problem.recipes, "optimizer.lr")
    assert compute_sensitivity(points, initial=2.0) == pytest.approx((1.105 - 0.205) / 2)
    assert compute_sensitivity(points, initial=0.605) == pytest.approx((0.605 - 0.205) / 2)
    assert math.isnan(compute_sensitivity(points, math.nan))


def test_numbers_drawn_at_random_are_dots_and_a_map_rounds_them(synthetic):
    draw, runs = np.random.default_rng(0), []
    for lr, width in np.exp(draw.uniform(0, 5, size=(60, 2))):
        config = {**synthetic.config(lr=float(lr)), "model": {"width": float(width)}}
        runs.append(synthetic.run(0, {"risk/val": lr, "risk/test": lr}, config=config))
    found = analyze_problem(build_study(CollectedRuns(runs, [])).problems[0])
    lines = chart_swept_number(found, found.methods, "optimizer.lr", "lr").lines
    assert [(line.dots, len(line.x)) for line in lines] == [(True, 60)]
    recipes = found.problem.recipes
    map_ = map_risk(found.problem, recipes, "optimizer.lr", "model.width")
    assert map_.risk.shape == (6, 6)
    assert np.nanmin(map_.risk) == min(r.numbers["optimizer.lr"] for r in recipes)


def test_a_grid_is_joined(problem):
    found = analyze_problem(problem)
    lines = chart_swept_number(found, found.methods, "optimizer.lr", "lr").lines
    assert [(line.dots, line.dashed) for line in lines] == [(False, False), (False, True)]


def test_a_map_of_two_numbers(problem):
    found = map_risk(problem, problem.recipes, "optimizer.lr", "model.width")
    assert found.x == [0.1, 1.0] and found.y == [10.0, 20.0]
    assert found.risk[:, 0] == pytest.approx([0.205, 0.305])
    assert found.risk[0, 1] == pytest.approx(1.105) and math.isnan(found.risk[1, 1])
    assert map_risk(problem, problem.recipes, "optimizer.lr", "model.depth") is None


def test_a_trial_that_diverged_counts_as_the_risk_before_training(problem):
    val = next(line for line in chart_trials(analyze_problem(problem)).lines if not line.dashed)
    assert val.x == [1, 2, 3, 4]
    assert val.y[0] == pytest.approx(np.mean([0.205, 0.305, 1.105, 2.0]))
    assert val.y[-1] == pytest.approx(0.205)


def test_what_is_drawn_first(problem):
    assert [r.label for r in rank_recipes(analyze_problem(problem), 2)] == [
        "lr=0.1 width=10",
        "lr=0.1 width=20",
    ]


def test_steps_to_a_target(synthetic):
    run = synthetic.run(val=[1.0, 0.6, 0.4, 0.5])
    assert (
        count_steps(run, 0.6) == 10 and count_steps(run, 0.45) == 20 and count_steps(run, 1.0) == 0
    )
    assert count_steps(run, 0.1) == math.inf and count_steps(synthetic.run(), 1.0) == math.inf


def test_a_target_that_no_run_reached_is_told(synthetic):
    runs = CollectedRuns([synthetic.run(s, val=[1.0, 0.6, 0.4, 0.5]) for s in range(3)], [])
    problem = build_study(runs).problems[0]
    told = [" ".join(list_warnings(analyze_problem(problem, target=t))) for t in (-5, 0.45, None)]
    assert "No run reached the target, a validation risk of -5." in told[0]
    assert not any("reached the target" in text for text in told[1:])


def test_profiles_by_hand():
    times = [{"a": 10.0, "b": 20.0}, {"a": 30.0, "b": 10.0}, {"a": 5.0, "b": math.inf}]
    found = performance_profile(times)
    assert found["a"][0].tolist() == [1.0, 3.0]
    assert found["a"][1] == pytest.approx([2 / 3, 1.0])
    assert found["b"][0].tolist() == [1.0, 2.0]
    assert found["b"][1] == pytest.approx([1 / 3, 2 / 3])


def test_a_method_that_reaches_nothing_stays_at_zero():
    found = performance_profile([{"a": 1.0, "b": math.inf}])
    assert found["b"][0].tolist() == [1.0] and found["b"][1].tolist() == [0.0]


def test_a_band_is_the_interval_of_each_epoch(synthetic):
    runs = [synthetic.run(s, val=v) for s, v in enumerate(([3, 2, 1.0], [4, 2.5], [5, 2.2, 1.5]))]
    found = average_curves(runs, "risk/val")
    assert found.epoch.tolist() == [0, 1, 2] and found.n.tolist() == [3, 3, 2]
    expected = estimate_mean([2, 2.5, 2.2])
    assert (found.mean[1], found.low[1], found.high[1]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


def test_a_band_ends_where_fewer_than_half_of_the_runs_got(synthetic):
    runs = [synthetic.run(0, val=[1.0] * 9), *(synthetic.run(s, val=[1.0] * 4) for s in (1, 2))]
    assert average_curves(runs, "risk/val").epoch.tolist() == [0, 1, 2, 3]
    assert average_curves([synthetic.run()], "risk/val") is None


def test_a_risk_that_was_never_finite_has_no_curve(synthetic):
    assert average_curves([synthetic.run(val=[math.nan, math.nan])], "risk/val") is None


def test_one_run_has_no_band():
    mean, low, high = estimate_columns(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1.0, 2.0] and np.isnan(low).all() and np.isnan(high).all()


def test_every_draw_of_n_trials_by_brute_force():
    draw = np.random.default_rng(0)
    val, unseen = draw.normal(size=(2, 7))
    found = expect_best(val, unseen)
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
    weights = best_of_n_probabilities(500)
    assert weights.sum(1) == pytest.approx(np.ones(500), rel=1e-9)
    assert weights[-1, 0] == pytest.approx(1.0)


def test_ends():
    found = expect_best(np.array([2.0, 1.0, 3.0]), np.array([5.0, 6.0, 7.0]))
    assert found.val[0] == pytest.approx(2.0) and found.val[-1] == pytest.approx(1.0)
    assert found.unseen[0] == pytest.approx(6.0) and found.unseen[-1] == pytest.approx(6.0)


def test_a_learning_curve_is_one_over_the_number_of_training_samples():
    from truerisk.reports.config_diff import defines_problem

    flat = {"data._target_": "truerisk.data.DataModule", "data.num_train": 50, "data.val": 0.2}
    assert not defines_problem("data.num_train", flat)
    assert defines_problem("data.val", flat)
