"""What a report says of seeds that split one set of samples anew."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truerisk.reports.findings import describe_resplits
from truerisk.reports.run_records import read_resplit
from truerisk.reports.seed_mean import estimate_mean

IRIS = {"val": 0.2, "test": 0.2, "source": {"_target_": "truerisk.data.iris"}}


def finished(synthetic, seed, sizes=(30, 30), **data):
    config = synthetic.config(seed=seed)
    config["data"] = {**config["data"], **IRIS, **data}
    run = synthetic.run(seed, {"risk/val": 0.5, "risk/test": 0.5 + seed / 100}, config=config)
    for name, size in zip(("risk/val", "risk/test"), sizes, strict=True):
        run.summary[name] = run.summary[name]._replace(size=size)
    return run


@pytest.mark.parametrize(
    ("change", "ratio"),
    [
        ({}, 1 / 3),
        ({"val": 0.1, "test": 0.5, "sizes": (15, 75)}, 5 / 4),
        ({"split": "group:patient"}, 1 / 3),
        ({"split": "time:day"}, 0),
        ({"folds": 5}, 0),
        ({"test": None}, 0),
        # drawn anew by every seed; and one set that is split by each
        ({"source": {"_target_": "truerisk.data.gaussians", "seed": None}}, 0),
        ({"source": {"_target_": "truerisk.data.gaussians", "seed": 3}}, 1 / 3),
        # a test set of the source's own
        ({"sizes": (30, 1000)}, 0),
    ],
)
def test_ratio_of_test_to_training_samples(synthetic, change, ratio):
    assert read_resplit(finished(synthetic, 0, **change)) == pytest.approx(ratio)


def test_the_page_says_it_once_seeds_split(synthetic):
    from truerisk.reports.learning_problem import build_study
    from truerisk.reports.run_records import CollectedRuns

    def describe(runs):
        return describe_resplits(build_study(CollectedRuns(runs, [])).problems[0])

    (sentence,) = describe([finished(synthetic, seed) for seed in range(5)])
    assert "1.63 times as large (√(1 + 5·0.333), Nadeau & Bengio 2003)" in sentence
    assert "data.folds=5" in sentence
    assert describe([finished(synthetic, 0)]) == []
    assert describe([finished(synthetic, seed, folds=5, fold=0) for seed in range(5)]) == []


def test_how_often_alike_recipes_are_told_apart():
    """Each predicts y = a + b by one of the two features, a or b: their risks are alike."""
    rng = np.random.default_rng(0)
    plain = widened = 0
    for _ in range(400):
        features = rng.normal(size=(100, 2))
        y = features.sum(1)
        differences = []
        for _ in range(5):
            order = rng.permutation(100)
            train, test = order[:60], order[80:]
            slope = (features[train] * y[train, None]).mean(0) / (features[train] ** 2).mean(0)
            losses = (features[test] * slope - y[test, None]) ** 2
            differences.append(float(losses[:, 0].mean() - losses[:, 1].mean()))
        found = estimate_mean(differences)
        half = (found.high - found.low) / 2
        plain += abs(found.mean) > half
        widened += abs(found.mean) > half * math.sqrt(1 + 5 / 3)
    assert plain / 400 > 0.1
    assert widened / 400 < 0.05
