"""Folds of cross-validation: what is tested when, and what a report makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import TimeSeriesSplit

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, arrays
from truerisk.reports.comparison import compare_recipes
from truerisk.reports.seed_mean import estimate_mean

SPLITS = ("train", "val", "test")


@pytest.fixture
def source(tmp_path):
    draw, n = np.random.default_rng(0), 103
    label = draw.choice(3, n, p=[0.6, 0.3, 0.1])
    columns = {"site": draw.integers(0, 20, n), "day": draw.permutation(n)}
    x = np.arange(n, dtype=float)[:, None]
    np.savez(tmp_path / "f.npz", x=x, y=label, **columns)

    def read(aside=()):
        return arrays(str(tmp_path / "f.npz"), aside=aside)

    return read, label, columns


def rows(source, **keys):
    data = DataModule(source[0], folds=5, standardize="none", **keys)
    data.prepare()
    return {s: getattr(data, s).x[:, 0].long().numpy() for s in SPLITS}


@pytest.mark.parametrize("split", ["random", "group:site"])
def test_every_sample_is_tested_once_and_in_no_training(source, split):
    found = [rows(source, fold=k, split=split) for k in range(5)]
    assert sorted(np.concatenate([f["test"] for f in found])) == list(range(103))
    for parts in found:
        assert sorted(np.concatenate(list(parts.values()))) == list(range(103))
        sites = [set(source[2]["site"][part]) for part in parts.values()]
        if split == "group:site":
            assert sum(map(len, sites)) == len(set.union(*sites))
        else:
            assert len(parts["test"]) in (20, 21)
            counts = np.bincount(source[1][parts["test"]], minlength=3)
            whole = np.bincount(source[1]) / 5
            assert np.all(np.abs(counts - whole) < 1)
        assert abs(len(parts["val"]) - 0.2 * (103 - len(parts["test"]))) < 9


def test_folds_are_the_same_for_one_seed_and_others_for_another(source):
    first, again = rows(source, fold=2, seed=1), rows(source, fold=2, seed=1)
    assert all(np.array_equal(first[s], again[s]) for s in SPLITS)
    assert set(first["test"]) != set(rows(source, fold=2, seed=2)["test"])


def test_folds_in_time_are_scikit_learns(source):
    day = source[2]["day"]
    known = TimeSeriesSplit(5).split(np.arange(103))
    for k, (past, tested) in enumerate(known):
        parts = rows(source, fold=k, split="time:day")
        # a block may begin a sample earlier or later where 103 is no multiple of 6
        assert (
            abs(len(tested) - len(parts["test"])) <= 3
            and abs(len(past) - day[parts["test"]].min()) <= 3
        )
        assert day[parts["train"]].max() < day[parts["val"]].min()
        assert day[parts["val"]].max() < day[parts["test"]].min()


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"folds": 1}, "from 2"),
        ({"folds": 5, "fold": 5}, "give 0 to 4"),
        ({"fold": 1}, "set data.folds"),
        ({"folds": 30}, "a class has .* lower it, or set data.stratify=false"),
        ({"folds": 30, "split": "group:site"}, "20 different values"),
        ({"folds": 5, "split": "fixed:day"}, "has no folds"),
    ],
)
def test_mistakes(source, keys, word):
    with pytest.raises(ConfigError, match=word):
        DataModule(source[0], **keys).prepare()


def test_its_own_test_set_is_not_left_out(source):
    with pytest.raises(ConfigError, match="has its own test set"):
        truerisk.train(["data=mnist1d", "data.folds=5"])


def draw_study(draw, n=60, folds=5):
    """Test risks by fold of two equal recipes, means of a normal that each fits, and the truth."""
    x = draw.normal(size=n)
    fold = np.arange(n) % folds
    risks, truths = np.zeros((2, folds)), []
    for k in range(folds):
        for recipe in range(2):
            # each recipe looks at its own random half of the training samples
            train = draw.permutation(x[fold != k])[: n // 2]
            mean = train.mean()
            risks[recipe, k] = np.square(x[fold == k] - mean).mean()
            truths.append(1 + mean**2)
    return risks, np.mean(truths)


def test_intervals_over_folds_hold_the_risk_and_equal_recipes_are_not_told_apart():
    draw, studies, K = np.random.default_rng(0), 1000, 5
    held, plain, called = 0, 0, 0
    expected = 1 + 1 / 30
    for _ in range(studies):
        risks, _ = draw_study(draw)
        corrected = estimate_mean(risks[0], overlap=1 / (K - 1))
        naive = estimate_mean(risks[0])
        held += corrected.low <= expected <= corrected.high
        plain += naive.low <= expected <= naive.high
        a, b = (dict(enumerate(r)) for r in risks)
        called += compare_recipes("a", "b", a, b, overlap=1 / (K - 1)).p <= 0.05
    assert held / studies > 0.94 and held >= plain
    assert called / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5


def test_the_correction_is_nadeau_and_bengios():
    values = [1.0, 2.0, 4.0, 3.0, 5.0]
    estimate = estimate_mean(values, overlap=0.25)
    assert estimate.stderr == pytest.approx(np.std(values, ddof=1) * (1 / 5 + 1 / 4) ** 0.5)
    assert estimate.mean == estimate_mean(values).mean


def test_a_report_pools_folds(tmp_path, monkeypatch):
    from truerisk.cli import main
    from truerisk.reports.findings import analyze_problem, summarize_findings
    from truerisk.reports.learning_problem import build_study
    from truerisk.reports.run_records import collect_runs

    monkeypatch.chdir(tmp_path)
    code = main([
            "train", "-m", "data=iris", "model=linear", "data.folds=3", "data.fold=range(3)",
            "optimizer.lr=0.01,0.1", "trainer.max_epochs=2", "hydra.sweep.dir=s", "report=false",
            "hydra/launcher=vectorized", "figures=false",
        ])  # fmt: skip
    assert not code
    study = build_study(collect_runs(["s"]))
    assert len(study.problems) == 1 and len(study.problems[0].recipes) == 2
    recipe = study.problems[0].recipes[0]
    assert len(recipe.runs) == 3 and recipe.overlap == 0.5
    values = np.array(list(recipe.get_values("risk/test").values()))
    estimate = recipe.estimate("risk/test")
    assert estimate.stderr == pytest.approx(values.std(ddof=1) * (1 / 3 + 1 / 2) ** 0.5)
    said = " ".join(summarize_findings(analyze_problem(study.problems[0])))
    assert "Nadeau & Bengio 2003" in said
