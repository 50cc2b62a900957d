"""Folds of cross-validation: what is tested when, and what a report makes of them."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.model_selection import TimeSeriesSplit

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, arrays
from truerisk.engine.measure import RiskEstimator
from truerisk.reports.comparison import compare_recipes
from truerisk.reports.seed_mean import FoldLosses, estimate_mean, pool_folds

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


def draw_losses(draw, n=60, folds=5, features=15):
    """Squared errors [2, n] by ridge regression on random features, another draw a recipe."""
    x = draw.normal(size=(n, 5))
    y = x.sum(1) / 5**0.5 + np.sin(2 * x[:, 0]) + draw.normal(size=n)
    fold, losses = np.arange(n) % folds, np.zeros((2, n))
    for recipe in range(2):
        scale, shift = draw.normal(size=(5, features)), draw.normal(size=features)
        seen = np.maximum(x @ scale + shift, 0)
        for k in range(folds):
            past, tested = seen[fold != k], seen[fold == k]
            w = np.linalg.solve(past.T @ past + 0.3 * np.eye(features), past.T @ y[fold != k])
            losses[recipe, fold == k] = np.square(tested @ w - y[fold == k])
    return losses, fold


def to_folds(losses, fold, groups=None):
    numbers = {} if groups is None else {(0, k): groups[fold == k] for k in set(fold)}
    return FoldLosses({(0, k): losses[fold == k] for k in set(fold)}, numbers)


def test_intervals_of_pooled_losses_hold_the_risk_and_are_narrower_than_those_of_folds():
    draw, K = np.random.default_rng(0), 5
    studies = [draw_losses(draw) for _ in range(600)]
    risk = np.mean([losses.mean() for losses, _ in studies])
    held, called, widths = 0, 0, []
    for losses, fold in studies:
        first, second = (to_folds(one, fold) for one in losses)
        means = [[part.mean() for part in one.losses.values()] for one in (first, second)]
        by_fold = estimate_mean(means[0], overlap=1 / (K - 1))
        pooled = pool_folds(first, 1 / (K - 1))
        estimate = by_fold if pooled is None else pooled.estimate
        held += estimate.low <= risk <= estimate.high
        widths.append([estimate.high - estimate.low, by_fold.high - by_fold.low])
        values = [dict(zip(first.losses, each, strict=True)) for each in means]
        called += (
            compare_recipes(
                "a", "b", *values, overlap=1 / (K - 1), losses=(first, second)
            ).p <= 0.05
        )  # fmt: skip
    # losses are skewed, and there are sixty
    assert 0.92 < held / 600 < 0.98
    narrow, wide = np.median(widths, 0)
    assert narrow < 0.85 * wide
    assert called / 600 <= 0.05


def test_pooled_losses_in_groups_and_of_folds_that_differ():
    draw = np.random.default_rng(1)
    fold, groups = np.repeat(np.arange(4), 15), np.tile(np.repeat(np.arange(5), 3), 4)
    shared = draw.normal(size=20).repeat(3)
    clustered = pool_folds(to_folds(shared, fold, groups), 1 / 3).estimate
    # three equal samples of a group are worth one
    each = pool_folds(to_folds(shared[::3], fold[::3]), 1 / 3).estimate
    assert clustered == pytest.approx(each)
    assert pool_folds(to_folds(shared, fold), 1 / 3).estimate.stderr < each.stderr
    # training failed on one fold: its samples do not explain that
    assert pool_folds(to_folds(shared + 5 * (fold == 0), fold, groups), 1 / 3) is None
    assert pool_folds(to_folds(np.ones(60), fold), 1 / 3) is None
    # repeated folds have the samples of one
    twice = {**each_fold(shared, fold, 0), **each_fold(shared, fold, 1)}
    both = pool_folds(FoldLosses(twice, {}), 1 / 3)
    once = pool_folds(to_folds(shared, fold), 1 / 3)
    assert both.freedom == once.freedom == 56
    assert both.estimate.stderr == pytest.approx(
        once.estimate.stderr * ((1 / 8 + 1 / 3) / (1 / 4 + 1 / 3)) ** 0.5
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_a_trainer_of_ones_own_clusters_and_weighs_as_a_run_does(tmp_path, weighted):
    draw = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 4)
    x = np.repeat(draw.normal(size=(30, 2)), 4, 0)
    y = np.repeat(draw.normal(size=30), 4) + 0.1 * draw.normal(size=120)
    np.savez(tmp_path / "f.npz", x=x, y=y, patient=patient, w=draw.uniform(0.2, 3, 120))
    given = [
        "data=arrays", f"data.source.path={tmp_path}/f.npz", "model=linear", "loss=mse",
        "data.split=group:patient", "metric=[rmse]", "trainer.max_epochs=1", "data.batch_size=7",
        *(["risk.weighted=true", "+data.source.weight=w"] if weighted else []),
    ]  # fmt: skip
    import lightning as L

    ours = truerisk.train(given, folder=tmp_path / "run")
    module, data = truerisk.build_module(given)
    module.model.load_state_dict(ours.network.state_dict())
    trainer = L.Trainer(logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*independent samples")
        trainer.validate(module, datamodule=data, verbose=False)
        told = dict(trainer.callback_metrics)
        trainer.test(module, verbose=False)  # its own dataloaders
        told |= trainer.callback_metrics
    for name in ("risk/val", "risk/test", "metric/rmse/test"):
        measured = ours.summary[name]
        assert told[name].item() == pytest.approx(measured.value, rel=1e-5)
        assert told[f"{name}/stderr"].item() == pytest.approx(measured.stderr, rel=1e-5)
    pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data.test.x, data.test.y))
    with pytest.warns(UserWarning, match="not those of the module's own data"):
        trainer.test(module, pairs, verbose=False)
    assert trainer.callback_metrics["risk/test/stderr"] < 0.8 * told["risk/test/stderr"]
    module, _ = truerisk.build_module(given)
    of_another = truerisk.build_module([*given[:4], "data.split=random"])[1]
    with pytest.warns(UserWarning, match="not those of the module's own data"):
        trainer.validate(module, datamodule=of_another, verbose=False)


def test_losses_that_two_processes_measured_are_put_into_order():
    x = torch.arange(7.0)
    processes = SimpleNamespace(
        gather=lambda own: [own, {"risk": x[1::2]}],
        recipe=SimpleNamespace(risk=SimpleNamespace(weighted=False)),
        data=SimpleNamespace(groups={}),
        _final_part=lambda name, values: values,
    )
    whole = RiskEstimator.spread_losses(processes, "test", {"risk": x[::2]})
    assert whole["risk"].tolist() == x.tolist()


def each_fold(losses, fold, seed):
    return {(seed, k): losses[fold == k] for k in set(fold)}


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_that_are_kept_are_those_of_the_measured_risk(tmp_path, weighted):
    draw, n = np.random.default_rng(0), 90
    x = draw.normal(size=(n, 3))
    patient = draw.permutation(np.repeat(np.arange(30), 3))
    columns = {"patient": patient, "w": draw.uniform(0.2, 3, n)}
    np.savez(tmp_path / "f.npz", x=x, y=x.sum(1) + draw.normal(size=n), **columns)
    run = truerisk.train(
        [
            "data=arrays", f"data.source.path={tmp_path}/f.npz", "data.source.weight=w",
            "model=linear", "loss=mse", "data.folds=3", "data.fold=1", "trainer.max_epochs=1",
            "data.split=group:patient", f"risk.weighted={weighted}", "figures=false",
        ],
        folder=tmp_path / "run",
    )  # fmt: skip
    kept, told = run.run.losses(), run.summary["risk/test"]
    pooled = FoldLosses(
        {(0, k): kept["risk"] for k in range(2)}, {(0, k): kept["group"] for k in range(2)}
    )
    found = pool_folds(pooled, 0.0).estimate
    assert found.mean == pytest.approx(told.value, rel=1e-6)
    assert found.stderr * 2**0.5 == pytest.approx(told.stderr, rel=1e-5)
    assert len(np.unique(kept["group"])) == told.size


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
            "metric=[accuracy,f1_macro,torchmetrics]", "metric.torchmetrics.metric=JaccardIndex",
        ])  # fmt: skip
    assert not code
    study = build_study(collect_runs(["s"]))
    assert len(study.problems) == 1 and len(study.problems[0].recipes) == 2
    recipe = study.problems[0].recipes[0]
    assert len(recipe.runs) == 3 and recipe.overlap == 0.5
    values = np.array(list(recipe.get_values("risk/val").values()))
    spread = values.std(ddof=1)
    assert recipe.estimate("risk/val").stderr == pytest.approx(spread * (1 / 3 + 1 / 2) ** 0.5)
    losses = [run.losses["risk"].astype(float) for run in recipe.runs]
    within = np.mean([part.var(ddof=1) for part in losses]) / 50
    estimate = recipe.estimate("risk/test")
    assert estimate.mean == pytest.approx(np.concatenate(losses).mean())
    assert estimate.stderr == pytest.approx((within * (1 / 3 + 1 / 2)) ** 0.5)
    # recipes are compared sample by sample
    other = study.problems[0].recipes[1]
    pairs = [a - b.losses["risk"] for a, b in zip(losses, other.runs, strict=True)]
    found = analyze_problem(study.problems[0]).comparisons["risk/test"][0].difference
    within = np.mean([pair.var(ddof=1) for pair in pairs]) / 50
    assert abs(found.mean) == pytest.approx(abs(np.concatenate(pairs).mean()))
    assert found.stderr == pytest.approx((within * (1 / 3 + 1 / 2)) ** 0.5)
    said = " ".join(summarize_findings(analyze_problem(study.problems[0])))
    assert "Nadeau & Bengio 2003" in said and "paired by sample" in said
    # every sample is tested once, and what was kept of it is what was measured
    kept = [run.losses["risk"] for run in recipe.runs]
    assert sum(map(len, kept)) == 150
    for run in recipe.runs:
        told = run.summary["risk/test"]
        assert told.value == pytest.approx(run.losses["risk"].mean(), rel=1e-6)
        assert told.stderr == pytest.approx(run.losses["risk"].std(ddof=1) / 50**0.5, rel=1e-5)
        assert run.summary["error/test"].value == pytest.approx(run.losses["error"].mean())
    # of a mean of samples their own scores are paired, of others influences
    error, accuracy = (recipe.estimate(m) for m in ("error/test", "metric/accuracy/test"))
    assert accuracy.mean == pytest.approx(1 - error.mean, abs=1e-6)
    assert accuracy[1:4] == pytest.approx((error.stderr, 1 - error.high, 1 - error.low), abs=1e-6)
    found = analyze_problem(study.problems[0])
    pairs = [found.comparisons[m][0] for m in ("error/test", "metric/accuracy/test")]
    assert pairs[1].difference.mean == pytest.approx(-pairs[0].difference.mean, abs=1e-6)
    assert pairs[1].p == pytest.approx(pairs[0].p, rel=1e-4)
    kept, told = recipe.runs[0].losses, recipe.runs[0].summary["metric/f1_macro/test"]
    scores = kept["metric/f1_macro"].astype(float)
    assert scores.mean() == pytest.approx(told.value, rel=1e-5)
    assert scores.std(ddof=1) / len(scores) ** 0.5 == pytest.approx(told.stderr, rel=1e-4)
    said = " ".join(summarize_findings(found))
    assert "each sample's influence" in said and "Of test torchmetrics it is that of folds" in said
