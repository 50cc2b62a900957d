from __future__ import annotations

import gzip
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, table

GAP = float("nan")


def frame(n=60):
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": draw.normal(size=n).round(3),
            "count": draw.integers(0, 9, n),
            "colour": np.array(["red", "green", "blue"])[np.arange(n) % 3],
            "old": np.arange(n) % 2 == 0,
            "kind": np.array(["cat", "dog"])[(np.arange(n) // 2) % 2],
        }
    )


@pytest.fixture
def write(tmp_path):
    def write(data, name="data.csv"):
        path = tmp_path / name
        if name.endswith(".parquet"):
            data.to_parquet(path)
        elif name.endswith(".csv"):
            data.to_csv(path, index=False)
        else:
            path.write_text(data)
        return str(path)

    return write


def ready(path, target="kind", module=None, **options):
    module = DataModule(partial(table, path, target, **options), **(module or {}))
    module.prepare()
    return module


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_columns_become_features(write, name):
    data = frame()
    module = ready(write(data, name), module={"standardize": "none"})
    assert module.info[:4] == ("classification", (6,), 2, ("cat", "dog"))
    found = {tuple(row) for s in ("train", "val", "test") for row in getattr(module, s).x.tolist()}
    hot = pd.get_dummies(data["colour"], dtype=float)[["blue", "green", "red"]]
    columns = [data[["size", "count"]].astype(float), hot, data[["old"]].astype(float)]
    expected = pd.concat(columns, axis=1).to_numpy()
    assert found == {tuple(row) for row in expected.tolist()}


def test_categories_are_those_of_the_training_split(write):
    data = frame(200)
    data["rare"] = [f"r{k}" for k in range(200)]
    path = write(data)
    module = ready(path, columns=["rare"], max_categories=200, module={"standardize": "none"})
    assert module.info.input_shape == (120,)
    assert torch.equal(module.train.x.sum(1), torch.ones(120).double())
    assert module.val.x.abs().sum() == 0 and module.test.x.abs().sum() == 0


@pytest.mark.parametrize(
    ("missing", "statistic"),
    [
        ("mean", np.mean),
        ("median", np.median),
        ("most_frequent", lambda v: np.bincount(v).argmax()),
    ],
)
def test_gaps_are_filled_from_the_training_split(write, missing, statistic):
    data = frame(400)
    data["count"] = data["count"].astype(float)
    data.loc[::5, "count"] = GAP
    data.loc[::7, "colour"] = None
    path = write(data)
    module = ready(path, missing=missing, columns=["count", "size", "colour"])
    raw = {s: module.raw(getattr(module, s).x) for s in ("train", "test")}
    size = data["size"].to_numpy()
    known = {}
    for value, count, colour in zip(size, data["count"], data["colour"], strict=True):
        known.setdefault(round(value, 3), []).append((count, colour))
    single = {k: v[0] for k, v in known.items() if len(v) == 1}
    rows = [single.get(round(v, 3), (None, None)) for v in raw["train"][:, 1].tolist()]
    fitted = module.state_dict()["encoder"]["columns"]
    assert [part["name"] for part in fitted] == ["count", "size", "colour"]
    filled = raw["train"][[r[0] is not None and np.isnan(r[0]) for r in rows], 0]
    assert len(filled) > 10 and torch.allclose(filled, torch.tensor(fitted[0]["fill"]).double())
    bare = DataModule(partial(table, path, "kind", missing=missing), seed=0)
    samples = bare.source()
    train = samples.x[bare._draw_rows(samples).train]
    count = train[:, samples.encoder.columns.index("count")]
    values = count[~count.isnan()].numpy()
    values = values.astype(int) if missing == "most_frequent" else values
    assert fitted[0]["fill"] == pytest.approx(float(statistic(values)), rel=1e-12)
    words = samples.encoder.vocabulary["colour"]
    colour = train[:, samples.encoder.columns.index("colour")]
    most = torch.bincount(colour[~colour.isnan()].long()).argmax()
    assert fitted[2]["fill"] == words[int(most)] and fitted[2]["categories"] == words


def test_rows_with_gaps_can_be_dropped(write):
    data = frame()
    data.loc[:9, "size"] = GAP
    data.loc[58:, "kind"] = None
    module = ready(write(data), missing="drop")
    assert sum(len(getattr(module, s)) for s in ("train", "val", "test")) == 48


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_classes_of_numbers_stay_classes_where_a_gap_is_dropped(write, name):
    data = frame().drop(columns="kind")
    data["flag"] = (np.arange(60) % 2).astype(float)
    data.loc[7, "flag"] = GAP
    module = ready(write(data, name), target="flag", missing="drop")
    assert module.info.task == "classification" and module.info.class_names == ("0", "1")


def test_numbers_can_be_categories_even_with_gaps(write):
    data = frame()
    data["count"] = (np.arange(60) % 3 + 1).astype(float)
    data.loc[0, "count"] = GAP
    for name in ("data.csv", "data.parquet"):
        module = ready(
            write(data, name), columns=["count"], categorical=["count"], missing="most_frequent"
        )
        categories = module.state_dict()["encoder"]["columns"][0]["categories"]
        assert [float(c) for c in categories] == [1, 2, 3]


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        (np.arange(60) % 2, "auto", ("classification", 2)),
        (np.arange(60) % 2 == 0, "auto", ("classification", 2)),
        (np.arange(60), "auto", ("regression", 1)),
        (np.arange(60) / 7, "auto", ("regression", 1)),
        (np.arange(60) % 2, "regression", ("regression", 1)),
        (np.arange(60) % 3 + 0.0, "classification", ("classification", 3)),
    ],
)
def test_the_task_comes_from_the_target(write, values, task, expected):
    module = ready(write(frame().assign(goal=values)), "goal", task=task)
    assert (module.info.task, module.info.num_outputs) == expected


def test_several_targets_make_a_regression(write):
    data = frame()
    module = ready(write(data), ["size", "count"], columns=["colour"], task="regression")
    assert module.train.y.shape == (36, 2) and module.train.y.is_floating_point()


def test_other_tables_are_read_as_the_run_read_its_own(write):
    data = frame()
    first = ready(write(data))
    other = data.iloc[:8][["kind", "old", "colour", "count", "size"]].copy()
    other.loc[0, "colour"] = "violet"
    other["extra"] = 1.0
    module = DataModule(partial(table, write(other, "other.csv"), "kind"), test="all")
    module.load_state_dict(first.state_dict())
    module.prepare()
    raw = module.raw(module.test.x)
    assert module.info == first.info
    np.testing.assert_allclose(raw[:, 0].numpy(), other["size"], rtol=1e-9, atol=1e-12)
    assert torch.allclose(raw[0, 2:5], torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(raw[1:, 2:5].sum(1), torch.ones(7).double())


def test_tabs_delimiters_and_gzip(write, tmp_path):
    data = frame()
    one = ready(write(data.to_csv(sep="\t", index=False), "a.tsv")).train.x
    two = ready(write(data.to_csv(sep=";", index=False), "b.txt"), delimiter=";").train.x
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write(data.to_csv(index=False))
    three = ready(str(tmp_path / "c.csv.gz")).train.x
    assert torch.equal(one, two) and torch.equal(one, three)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "data.source.target is not set"),
        (
            {"target": "knd"},
            "data.source.target: the table has no column 'knd'; did you mean 'kind'",
        ),
        ({"columns": ["sise"]}, "data.source.columns: the table has no column 'sise'"),
        ({"drop": ["sise"]}, "data.source.drop: the table has no column 'sise'"),
        ({"categorical": ["colr"]}, "data.source.categorical: the table has no column 'colr'"),
        ({"missing": "men"}, "did you mean 'mean'"),
        ({"columns": ["kind"]}, "data.source.columns names 'kind', which is data.source.target"),
        ({"drop": ["kind"]}, "data.source.drop names 'kind', which is data.source.target"),
        ({"drop": ["size", "count", "colour", "old"]}, "no column is left"),
        ({"task": "regression"}, "the target is not a number"),
        ({"task": "both"}, "data.source.task is 'both'"),
        ({"max_categories": 2}, "column 'colour' holds texts of 3 kinds"),
    ],
)
def test_mistakes_are_named(write, options, message):
    with pytest.raises(ConfigError) as error:
        ready(write(frame()), **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "cannot be read as .csv"),
        ("a.csv", "x,kind\n", "has no rows"),
        ("a.csv", "x,kind\n1,2\n1,2,3,4\n", "a.csv has 4 fields separated by ',', and the header"),
        ("a.csv", "x,kind\n1,a\n,b\n", "missing in the columns 'x' (1)"),
        ("a.csv", "x,kind\n1,\n2,b\n", "'kind' (1); set data.source.missing to drop"),
        ("a.csv", "x,kind\ninf,a\n2,b\n", "column 'x' holds infinite numbers"),
        ("a.parquet", "no parquet", "cannot be read as .parquet"),
        ("a.xls", "1", "neither .csv, .tsv, .txt nor .parquet"),
    ],
)
def test_malformed_files_are_named(write, name, text, message):
    (path := __import__("pathlib").Path(write("", "empty.txt")).parent / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        ready(str(path))
    assert message in str(error.value)


def test_missing_files_get_a_hint(write):
    write(frame(), "flowers.csv")
    folder = write(frame(), "data.csv").removesuffix("data.csv")
    for path, message in (
        (None, "data.source.path is not set"),
        (folder + "flower.csv", "did you mean 'flowers.csv'"),
        (folder + "none/data.csv", "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            ready(path)


def test_columns_that_cannot_be_learnt_from_are_named(write):
    data = frame()
    data["when"] = GAP
    with pytest.raises(ConfigError, match="column 'when' has no value in the training split"):
        ready(write(data), missing="mean")
    data = frame().assign(kind=["a", None] * 30)
    with pytest.raises(ConfigError, match=r"'kind' \(30\)"):
        ready(write(data), missing="mean")
    data = pd.DataFrame({"x": [GAP, 1.0], "kind": ["a", None]})
    with pytest.raises(ConfigError, match="every row has a gap"):
        ready(write(data), missing="drop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop(columns="size"), "the table lacks the column 'size'"),
        (lambda d: d.assign(size="big"), "column 'size' was a number"),
        (lambda d: d.assign(colour=1), "add it to data.source.categorical"),
        (lambda d: d.assign(kind=["cat", "cow"] * 30), "class 'cow' is not among the classes"),
    ],
)
def test_other_tables_must_fit(write, change, message):
    first = ready(write(frame()))
    path = write(change(frame()), "other.csv")
    module = DataModule(partial(table, path, "kind"), test="all")
    module.load_state_dict(first.state_dict())
    with pytest.raises(ConfigError, match=message):
        module.prepare()


def test_several_columns_of_whole_numbers_are_quantities_or_labels(write):
    path = write(frame().assign(cards=np.arange(60) % 3, goals=np.arange(60) % 4))
    counts = ready(path, ["goals", "cards"], columns=["size"])
    assert (counts.info.task, counts.info.num_outputs) == ("regression", 2)
    path = write(frame().assign(red=np.arange(60) % 2, big=np.arange(60) % 4 == 0))
    labels = ready(path, ["red", "big"], columns=["size"], task="multilabel")
    assert (labels.info.task, labels.info.num_outputs) == ("multilabel", 2)
    for options in ({"task": "classification"}, {"target": ["kind", "colour"]}):
        with pytest.raises(ConfigError, match="class labels are one number a sample"):
            ready(path, **{"target": ["red", "big"], "columns": ["size"], **options})


@pytest.mark.filterwarnings("error")
def test_a_long_column_of_numbers_and_texts_is_one_of_texts(write):
    """pandas would read its first part as numbers, and warn of it."""
    n = 60_000
    label = np.where(np.arange(n) % 2 == 0, "1", "0").astype(object)
    label[n - 5000 :: 3] = "unknown"
    wide = {f"x{i}": np.arange(n) % 7 for i in range(24)}
    path = write(pd.DataFrame({**wide, "label": label}))
    assert ready(path, "label").info.class_names == ("0", "1", "unknown")
    one_hot = ready(path, "x0", columns=["x1", "label"], task="regression")
    assert one_hot.info.input_shape == (4,)
