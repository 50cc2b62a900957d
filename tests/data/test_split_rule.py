"""Splits by a column: groups, time, names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, arrays, table
from truerisk.data.split_rule import cut_groups, number_groups, parse_rule, split_groups

SPLITS = ("train", "val", "test")


@pytest.fixture
def patients(tmp_path):
    """20 patients with 1 to 9 rows each; ``row`` tells a row by its value."""
    draw = np.random.default_rng(0)
    rows = draw.integers(1, 10, 20)
    patient = np.repeat([f"p{k}" for k in range(20)], rows)
    n = len(patient)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(draw.integers(0, 30, n), "D")
    frame = pd.DataFrame({
        "row": np.arange(n, dtype=float),
        "patient": patient,
        "day": days.strftime("%Y-%m-%d"),
        "side": draw.choice(["train", "Validation", "test"], n, p=[0.6, 0.2, 0.2]),
        "label": draw.choice(["a", "b"], n, p=[0.7, 0.3]),
    })  # fmt: skip
    frame.to_csv(tmp_path / "p.csv", index=False)
    return frame


def split(frame, tmp_path, rule, **keys):
    drop = [c for c in ("patient", "day", "side") if c != rule.partition(":")[2]]
    path = str(tmp_path / "p.csv")

    def source(aside=()):
        return table(path, "label", drop=drop, aside=aside)

    data = DataModule(source, split=rule, standardize="none", **keys)
    data.prepare()
    rows = {s: getattr(data, s).x[:, 0].long().numpy() for s in SPLITS}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(frame)))
    return data, {s: frame.iloc[r] for s, r in rows.items()}


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_two_sides(patients, tmp_path, seed):
    data, sides = split(patients, tmp_path, "group:patient", seed=seed)
    assert data.info.input_shape == (1,)  # the group is no input
    names = [set(side.patient) for side in sides.values()]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    for name, side in sides.items():
        # as near to the share asked for as whole groups can be, of at most nine rows
        share = 0.6 if name == "train" else 0.2
        assert abs(len(side) - share * len(patients)) <= 9
        assert len(data.groups[name].unique()) == side.patient.nunique()


def test_other_seeds_draw_other_groups(patients, tmp_path):
    tested = {
        frozenset(split(patients, tmp_path, "group:patient", seed=s)[1]["test"].patient)
        for s in range(4)
    }
    assert len(tested) > 1


def test_each_group_is_tested_as_often_as_its_share():
    groups = torch.arange(10).repeat_interleave(torch.arange(1, 11))
    labels = torch.zeros(len(groups), dtype=torch.long)
    draw = torch.Generator().manual_seed(0)
    found = torch.zeros(10)
    for _ in range(400):
        rows = split_groups(groups, labels, 0.2, 0.3, draw, "g")
        found[groups[rows.test].unique()] += 1
    assert float(found.min() / 400) > 0.2 and float(found.max() / 400) < 0.45


def test_groups_keep_the_classes_shares_as_far_as_they_can():
    groups = torch.arange(40).repeat_interleave(5)
    labels = (groups % 4 == 0).long()  # a class a group
    draw = torch.Generator().manual_seed(0)
    apart = []
    for _ in range(20):
        rows = split_groups(groups, labels, 0.25, 0.25, draw, "g")
        apart += [abs(float(labels[r].double().mean()) - 0.25) for r in rows]
    # of ten groups 2.5 would have the class
    assert np.mean(apart) < 0.04


def test_the_past_trains_and_the_future_tests(patients, tmp_path):
    _, sides = split(patients, tmp_path, "time:day")
    assert sides["train"].day.max() < sides["val"].day.min()
    assert sides["val"].day.max() < sides["test"].day.min()
    assert 0.1 < len(sides["test"]) / len(patients) < 0.3


def test_a_column_names_the_split(patients, tmp_path):
    data, sides = split(patients, tmp_path, "fixed:side")
    assert [set(side.side) for side in sides.values()] == [{"train"}, {"Validation"}, {"test"}]
    assert "data.split=fixed:side" in data.notes[-1]


def test_without_a_validation_set_one_is_drawn_from_training(tmp_path, patients):
    patients["side"] = patients["side"].replace({"Validation": "train"})
    patients.to_csv(tmp_path / "p.csv", index=False)
    _, sides = split(patients, tmp_path, "fixed:side")
    assert set(sides["train"].side) == set(sides["val"].side) == {"train"}
    assert len(sides["val"]) == round(0.2 * (patients.side == "train").sum())


def test_arrays_have_columns_too(tmp_path):
    n, draw = 60, np.random.default_rng(0)
    site, x = draw.integers(0, 12, n), np.arange(n, dtype=float)[:, None]
    np.savez(tmp_path / "a.npz", x=x, y=draw.normal(size=n), site=site)

    def source(aside=()):
        return arrays(str(tmp_path / "a.npz"), aside=aside)

    data = DataModule(source, split="group:site", standardize="none")
    data.prepare()
    parts = [set(site[getattr(data, s).x[:, 0].long().numpy()]) for s in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("groups:patient", "did you mean 'group'"),
        ("group", "give random, group:COLUMN"),
        ("random:patient", "give random, group:COLUMN"),
        ("group:pateint", "no column 'pateint'; did you mean 'patient'"),
        ("time:patient", "neither numbers nor dates"),
        ("fixed:patient", "'p0' names no split"),
    ],
)
def test_mistakes(patients, tmp_path, rule, word):
    with pytest.raises(ConfigError, match=word):
        split(patients, tmp_path, rule)


def test_a_gap_and_a_source_without_columns_are_refused(tmp_path, patients):
    patients.loc[3, "patient"] = None
    patients.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ConfigError, match=r"'patient' has no value in 1 row, the first .* row 4"):
        split(patients, tmp_path, "group:patient")
    from truerisk.data import iris

    with pytest.raises(ConfigError, match=r"data.split=group:x: this source reads no such column"):
        DataModule(iris, split="group:x").prepare()


def test_too_few_groups_are_refused():
    with pytest.raises(ConfigError, match="has 2 different values, and 3 splits"):
        cut_groups(torch.tensor([5, 5]), [2, 2], "g")
    assert cut_groups(torch.tensor([1, 98, 1]), [20, 20], "g").tolist() == [0, 1, 2]


def test_a_rare_class_needs_no_stratifying(tmp_path):
    frame = pd.DataFrame({"x": range(30), "label": ["a"] * 29 + ["b"]})
    frame.to_csv(tmp_path / "r.csv", index=False)

    def source():
        return table(str(tmp_path / "r.csv"), "label")

    with pytest.raises(ConfigError, match=r"data\.stratify=false"):
        DataModule(source).prepare()
    data = DataModule(source, stratify=False)
    data.prepare()
    assert len(data.train) + len(data.val) + len(data.test) == 30


def test_numbers_of_groups():
    assert number_groups(np.array([3, 1, 3])).tolist() == [1, 0, 1]
    assert parse_rule("time:a:b") == ("time", "a:b")
