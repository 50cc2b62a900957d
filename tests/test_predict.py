"""``truerisk predict``: what is in the table is what was measured, and what stands in the files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.predict import describe_table, predict, write_table

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

RECIPES = {
    "classes": "",
    "logistic": "data=breast_cancer loss=bce",
    "one against the rest": "loss=bce",
    "margins": "loss=hinge",
    "numbers": "data=diabetes loss=mse",
    "averaged": "model.normalization=batch regularizer=[ema]",
    "double": "trainer.precision=64-true",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_and_errors_are_those_that_were_measured(tiny, tmp_path, recipe):
    run = tiny(tmp_path / "run", RECIPES[recipe].split())
    table = predict([tmp_path / "run"], split="all")
    for split, rows in table.groupby("split"):
        measured = run.summary[f"risk/{split}"]
        assert rows["loss"].mean() == pytest.approx(measured.value, rel=1e-6)
        if f"error/{split}" in run.summary:
            wrong = (rows["target"] != rows["prediction"]).mean()
            assert wrong == pytest.approx(run.summary[f"error/{split}"].value, abs=1e-6)
    assert sorted(table["row"]) == list(range(len(table)))
    p = table.filter(like="probability_")
    assert (p.shape[1] == 0) == (recipe in ("margins", "numbers"))
    if p.shape[1]:
        assert np.allclose(p.sum(axis=1), 1, atol=1e-6)
        best = p.columns[p.to_numpy().argmax(1)].str.removeprefix("probability_")
        assert (best == table["prediction"].astype(str)).all()


def test_rows_are_those_of_the_source(tiny, tmp_path):
    from sklearn.datasets import load_iris

    iris = load_iris()
    run = tiny(tmp_path / "run")
    table = predict([tmp_path / "run"])
    assert set(table["split"]) == {"test"} and len(table) == 30
    assert list(table["target"]) == list(iris.target_names[iris.target[table["row"]]])
    alone = run.predict(iris.data[table["row"]])
    assert list(alone.values) == list(table["prediction"])
    assert np.allclose(alone.probabilities, table.filter(like="probability_"), atol=1e-6)


def write(path, seed, targets=True, only=None):
    draw = np.random.default_rng(seed)
    x = draw.normal(50, 7, (40, 3))
    y = np.array(["a", "b", "c"])[draw.integers(3, size=40)]
    if only is not None:
        x, y = x[: len(only)], np.array(only)
    np.savez(path, x=x, **({"y": y} if targets else {}))
    return x, y


def arrays_run(tiny, tmp_path, *overrides):
    write(tmp_path / "old.npz", 0)
    source = ["data=arrays", f"data.source.path={tmp_path / 'old.npz'}", "data.batch_size=8"]
    return tiny(tmp_path / "run", [*source, *overrides])


def test_new_samples_without_targets_or_of_one_class_alone(tiny, tmp_path):
    run = arrays_run(tiny, tmp_path)
    x, y = write(tmp_path / "new.npz", 1)
    new = [f"data.source.path={tmp_path / 'new.npz'}"]
    known = predict([tmp_path / "run"], new)
    assert list(known["target"]) == list(y) and list(known["row"]) == list(range(40))
    write(tmp_path / "new.npz", 1, targets=False)
    blind = predict([tmp_path / "run"], new)
    pd.testing.assert_frame_equal(blind, known.drop(columns=["target", "loss"]))
    write(tmp_path / "new.npz", 1, only=["b"])
    (one,) = predict([tmp_path / "run"], new).itertuples()
    assert one.target == "b" and one.prediction == run.predict(x[:1]).values[0]
    write(tmp_path / "new.npz", 1, only=["d"])
    with pytest.raises(ConfigError, match="class 'd' is not among the classes"):
        predict([tmp_path / "run"], new)


def test_an_ensemble_is_the_mean_of_probabilities(tiny, tmp_path):
    folders = [tmp_path / str(k) for k in range(3)]
    runs = [tiny(folder, [f"seed.init={k}"]) for k, folder in enumerate(folders)]
    table = predict(folders)
    each = [predict([folder]).filter(like="probability_").to_numpy() for folder in folders]
    mean = np.mean(each, axis=0)
    assert np.allclose(table.filter(like="probability_"), mean, atol=1e-6)
    names = runs[0].model.class_names
    own = [mean[i, names.index(str(target))] for i, target in enumerate(table["target"])]
    assert table["loss"].to_numpy() == pytest.approx(-np.log(own), rel=1e-4)
    tiny(tmp_path / "other", ["seed.data=7"])
    with pytest.raises(ConfigError, match="split their samples differently"):
        predict([folders[0], tmp_path / "other"])
    tiny(tmp_path / "wine", ["data=wine"])
    with pytest.raises(ConfigError, match="another class_names cannot be averaged"):
        predict([folders[0], tmp_path / "wine"])


def test_the_mean_of_logistic_models_and_of_numbers(tiny, tmp_path):
    for name, recipe in {
        "a": ["data=breast_cancer", "loss=bce"],
        "b": ["data=diabetes", "loss=mse"],
    }.items():
        folders = [tmp_path / f"{name}{k}" for k in range(2)]
        for k, folder in enumerate(folders):
            tiny(folder, [*recipe, f"seed.init={k}"])
        column = {"a": "probability_malignant", "b": "prediction"}[name]
        alone = [predict([folder])[column] for folder in folders]
        assert predict(folders)[column].to_numpy() == pytest.approx(
            sum(alone).to_numpy() / 2, rel=1e-5
        )


def test_the_temperature_minimises_the_validation_likelihood(tiny, tmp_path):
    run = tiny(tmp_path / "run", ["optimizer.lr=0.3", "trainer.max_epochs=6"])
    table = predict([tmp_path / "run"], temperature=True)
    scale = table.attrs["temperature"]
    val = predict([tmp_path / "run"], split="val")
    names = run.model.class_names
    logits = torch.tensor(val.filter(like="probability_").to_numpy()).log()
    y = torch.tensor([names.index(str(target)) for target in val["target"]])
    grid = torch.linspace(0.9, 1.1, 201).double() * scale
    costs = [cross_entropy(logits / t, y).item() for t in grid]
    assert grid[int(np.argmin(costs))] == pytest.approx(scale, rel=2e-3)
    plain = predict([tmp_path / "run"])
    p = plain.filter(like="probability_").to_numpy() ** (1 / scale)
    scaled = table.filter(like="probability_").to_numpy()
    assert scaled == pytest.approx(p / p.sum(1, keepdims=True), rel=1e-4)
    assert list(table["prediction"]) == list(plain["prediction"]) and scale != 1
    tiny(tmp_path / "numbers", ["data=diabetes", "loss=mse"])
    with pytest.raises(ConfigError, match="calibrates the probabilities"):
        predict([tmp_path / "numbers"], temperature=True)


def test_the_command(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tiny(tmp_path / "run")
    assert main(["predict", "run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("30 samples (test), mean loss ") and "predictions.csv" in shown
    table = pd.read_csv("predictions.csv")
    assert table["loss"].mean() == pytest.approx(run.summary["risk/test"].value, rel=1e-6)
    assert main(["predict", "run"]) == 2
    assert "predictions.csv already" in capsys.readouterr().err
    assert main(["predict", "run", "--out", "val.parquet", "--split", "val"]) == 0
    assert set(pd.read_parquet("val.parquet")["split"]) == {"val"}
    for wrong, message in {
        "--out p.txt": "ends in .csv or .parquet",
        "--out p.csv --split tset": "no split 'tset'; there are train, val, test",
        "--out p.csv optimizer.lr=1": "a prediction takes overrides of data and trainer only",
        "nowhere --out p.csv": "nowhere",
    }.items():
        assert main(["predict", "run", *wrong.split()]) == 2
        assert message in capsys.readouterr().err


def test_a_function_has_nothing_to_predict(tmp_path, tiny):
    import truerisk

    truerisk.train(
        ["data=none", "model=rosenbrock", "trainer.max_epochs=1"], folder=tmp_path / "run"
    )
    with pytest.raises(ConfigError, match="minimises a function"):
        predict([tmp_path / "run"])


def test_several_targets_have_columns_of_their_names(tiny, tmp_path):
    from truerisk.predict import spread_columns

    assert list(spread_columns("target", np.zeros((2, 2)), ())) == ["target_0", "target_1"]
    path = write_csv(tmp_path / "t.csv", 60, 0).assign(
        age=1.0, tall=[0, 1] * 30, old=[0, 1, 1] * 20
    )
    path.to_csv(tmp_path / "t.csv")
    source = ["data=table", f"data.source.path={tmp_path / 't.csv'}", "data.batch_size=10"]
    tiny(tmp_path / "run", [*source, "data.source.target=[tall,old]", "loss=bce"])
    found = [name for name in predict([tmp_path / "run"]) if name.endswith(("tall", "old"))]
    kinds = ("target", "prediction", "probability")
    assert found == [f"{kind}_{name}" for kind in kinds for name in ("tall", "old")]
    with pytest.raises(ConfigError, match="non-existent"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "none" / "a.csv")


def write_csv(path, n, seed, drop=()):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "name": [f"p{k}" for k in range(n)],
            "age": draw.normal(40, 9, n).round(2),
            "colour": draw.choice(["red", "blue", "green"], n),
            "sick": draw.choice(["no", "yes"], n),
        }
    )
    frame.loc[1, "age"] = np.nan
    frame.drop(columns=list(drop)).to_csv(path, index=False)
    return frame


@pytest.mark.parametrize("missing", ["mean", "drop"])
def test_a_table_with_ids_gaps_and_no_target(tiny, tmp_path, missing):
    old = write_csv(tmp_path / "old.csv", 60, 0)
    source = ["data=table", f"data.source.path={tmp_path / 'old.csv'}", "data.source.target=sick"]
    more = ["data.source.id=name", f"data.source.missing={missing}", "data.batch_size=10"]
    run = tiny(tmp_path / "run", [*source, *more])
    assert run.run.metadata()["data"]["input_shape"] == [4]
    table = predict([tmp_path / "run"], split="all").sort_values("row")
    kept = [k for k in range(60) if missing == "mean" or k != 1]
    assert list(table["row"]) == kept and list(table["name"]) == list(old["name"][kept])
    assert list(table["target"]) == list(old["sick"][kept])
    new = write_csv(tmp_path / "new.csv", 5, 1, drop=["sick"])
    blind = predict([tmp_path / "run"], [f"data.source.path={tmp_path / 'new.csv'}"])
    kept = [k for k in range(5) if missing == "mean" or k != 1]
    assert list(blind["name"]) == list(new["name"][kept])
    assert "target" not in blind and "loss" not in blind
    found = run.predict(new.loc[kept].drop(columns="sick"))
    assert list(found.values) == list(blind["prediction"])
    assert np.allclose(found.probabilities, blind.filter(like="probability_"), atol=1e-7)
    write_csv(tmp_path / "new.csv", 5, 1)
    known = predict([tmp_path / "run"], [f"data.source.path={tmp_path / 'new.csv'}"])
    pd.testing.assert_frame_equal(known.drop(columns=["target", "loss"]), blind)
    assert list(known["target"]) == list(new["sick"][kept])
    empty = new.assign(sick=np.nan)
    empty.to_csv(tmp_path / "new.csv", index=False)
    again = predict([tmp_path / "run"], [f"data.source.path={tmp_path / 'new.csv'}"])
    pd.testing.assert_frame_equal(again, blind)
    with pytest.raises(ConfigError, match="no column 'age'"):
        run.predict(new.drop(columns="age"))


@pytest.mark.parametrize(
    "more",
    [["data.split=group:patient"], ["data.source.weight=size", "risk.weighted=true"]],
    ids=["clustered", "weighted"],
)
def test_the_line_has_the_numbers_that_the_run_has(tiny, tmp_path, more):
    """Seven rows a patient are not independent, and weights count where risks have them."""
    draw = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 7)
    label = (draw.normal(size=30)[patient] + draw.normal(size=210) > 0).astype(int)
    columns = {"a": draw.normal(size=210), "patient": patient, "size": 1.0 + patient, "y": label}
    pd.DataFrame(columns).to_csv(tmp_path / "t.csv", index=False)
    data = ["data=table", f"data.source.path={tmp_path}/t.csv", "data.source.target=y"]
    run = tiny(tmp_path / "run", [*data, *more])
    table = predict([tmp_path / "run"], split="all")
    for split, found in table.attrs["measured"].items():
        for key, name in {"loss": "risk", "error": "error"}.items():
            measured = run.summary[f"{name}/{split}"]
            assert found[key] == pytest.approx([measured.value, measured.stderr], rel=1e-5), split
    risk = run.summary["risk/val"]
    assert f"(val), mean loss {risk.value:.4g} ± {risk.stderr:.2g}" in describe_table(table)
