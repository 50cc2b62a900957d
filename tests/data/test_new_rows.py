"""Rows of a table that a run has not seen: what is told of them, refused, and written down."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.data.given_samples import read_data
from truerisk.data.own_files import read_inputs, table
from truerisk.export import export_run
from truerisk.predict import describe_table, predict

DRAW = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": DRAW.normal(size=60), "city": ["Rome", "Oslo", "Bern"] * 20})
FRAME["y"] = np.where(FRAME["a"] > 0, "p", "n")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run on the table."""
    folder = tmp_path_factory.mktemp("learned")
    FRAME.to_csv(folder / "t.csv", index=False)
    source = ["data=table", f"data.source.path={folder}/t.csv", "data.source.target=y"]
    return truerisk.train([*source, "trainer.max_epochs=1"], folder=folder / "run")


def test_an_unseen_category_is_told_in_python_too(learned):
    new = FRAME.head(5).replace({"city": {"Bern": "Bonn"}})
    with pytest.warns(UserWarning, match="1 of 5 given rows have in column 'city'.*'Bonn'") as told:
        learned.predict(new)
    assert told[0].filename == __file__


def test_columns_that_were_not_learned_from_are_left_out(learned, tmp_path):
    one = FRAME.head(1).drop(columns="y").assign(extra=[None], more=7.0)
    one.to_csv(tmp_path / "n.csv", index=False)
    found = predict([learned.folder], [f"data.source.path={tmp_path}/n.csv"])
    assert found.attrs["notes"] == [
        "n.csv: 1 row, 1 numeric and 1 categorical columns, target not given (a "
        "classification, 2 classes); left out: extra, more"
    ]
    assert describe_table(found) == "1 sample (test)"


def test_a_text_among_numbers_is_named_with_its_row(learned, tmp_path):
    new = FRAME.head(6).astype({"a": object})
    new.loc[4, "a"] = "high"
    new.to_csv(tmp_path / "n.csv", index=False)
    message = "column 'a' was a number .* such as 'high' in row 5"
    with pytest.raises(ConfigError, match=message):
        predict([learned.folder], [f"data.source.path={tmp_path}/n.csv"])
    with pytest.raises(ConfigError, match=message):
        learned.predict(new)


def test_an_exported_file_tells_its_inputs(learned, tmp_path):
    """Features made by hand from what the file says give what the run gives for the table."""
    path, _ = export_run(learned.folder, out=tmp_path / "m.pt")
    facts = torch.load(path, weights_only=True)
    columns = json.loads(facts["input_columns"])
    assert columns == ["a", "city=Bern", "city=Oslo", "city=Rome"]
    assert [len(columns)] == json.loads(facts["input_shape"])
    fill = json.loads(facts["fill_values"])
    new = FRAME.head(4).copy()
    new.loc[1, "a"] = np.nan
    filled = new.fillna(fill)
    rows = [[row.a, *(float(name == f"city={row.city}") for name in columns[1:])]
            for row in filled.itertuples()]  # fmt: skip
    by_hand = learned.predict(np.array(rows))
    assert torch.equal(by_hand.outputs, learned.predict(new).outputs)


@pytest.mark.parametrize("sign", ["^", "::"])
def test_an_odd_delimiter_is_asked_for(tmp_path, sign):
    file = tmp_path / "t.csv"
    rows = [["a", "b", "y"], *([str(k), "2", "uv"[k % 2]] for k in range(9))]
    file.write_text("\n".join(map(sign.join, rows)))
    with pytest.raises(ConfigError, match=r"one field each, .* set data\.source\.delimiter"):
        table(str(file), "y")
    assert table(str(file), "y", delimiter=sign).class_names == ["u", "v"]


@pytest.mark.parametrize(("row", "text"), [(250, '7,2,"u'), (3, '7,"2,u'), (250, '7,"2,u')])
def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path, row, text):
    lines = ["a,b,y", *(f"{k},2,{'uv'[k % 2]}" for k in range(300))]
    lines[row] = text
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=f"the quote .* in line {row + 1} is not closed"):
        table(str(tmp_path / "t.csv"), "y")


def test_a_pair_whose_inputs_are_no_numbers_is_refused_by_column():
    x, y = FRAME[["a", "city"]], FRAME["y"]
    with pytest.raises(ConfigError, match=r"column 'city' .*'Rome'.*data\.source\.target=target"):
        read_data((x, y))
    with pytest.raises(ConfigError, match=r"column 'a' of the inputs has 1 gap,.*missing"):
        read_data((x[["a"]].drop(index=2).reindex(range(60)), y))
    flags = read_data((x[["a"]].assign(flag=FRAME["a"] > 0), y)).splits["train"][0]
    assert flags.dtype == np.float64 and (flags[:, 1] == (FRAME["a"] > 0)).all()
    with pytest.raises(ConfigError, match="'Rome' stands at place 1, 2"):
        read_inputs(x.to_numpy(), "x", False)
    with pytest.raises(ConfigError, match="one number for samples"):
        read_data((np.float32(3), y))
    with pytest.raises(ConfigError, match="'x' is one number: give a row a sample"):
        read_inputs(np.array(3.0), "x", False)


def test_what_is_said_of_groups_from_python_works(tmp_path):
    frame = FRAME.assign(g=np.repeat(range(12), 5))
    asked = ["data.split=group:g", "trainer.max_epochs=1"]
    with pytest.raises(ConfigError, match=r"a DataFrame given from Python with data\.source\."):
        truerisk.train(asked, data=(frame[["a"]], frame["y"]), folder=tmp_path / "a")
    run = truerisk.train([*asked, "data.source.target=y"], data=frame, folder=tmp_path / "b")
    assert run.summary["risk/test"].size < 12  # groups
