"""What a run says of its targets before it trains, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from truerisk.core.errors import ConfigError
from truerisk.data import RunData, table
from truerisk.data.own_files import read_inputs


def notes_of(tmp_path, y, single=True, x=None):
    """Prepare a table of these targets; return the notes."""
    draw = np.random.default_rng(1)
    columns = {"x": draw.normal(size=len(y)) if x is None else x, "goal": y}
    pd.DataFrame(columns).to_csv(tmp_path / "t.csv", index=False)

    def read(suited=(), expected=None):
        return table(str(tmp_path / "t.csv"), "goal", suited=suited, expected=expected)

    read.keywords = {"target": "goal"}
    data = RunData(read)
    data.single = single
    data.prepare()
    return data.notes


Q = 2.3 * np.random.default_rng(0).normal(size=100)


@pytest.mark.parametrize("offset", [1e9, 1e8, 1e7])
def test_targets_that_single_precision_does_not_hold_are_refused(tmp_path, offset):
    """Rounding moves a number by spacing/√12 on average: 12 % of the deviation at 1e7."""
    spacing = f"{np.spacing(np.float32(offset)):.2g}"
    with pytest.raises(ConfigError, match=rf"'goal' .* only every {spacing} there: subtract"):
        notes_of(tmp_path, offset + Q)
    assert len(notes_of(tmp_path, offset + Q, single=False)) == 1


def test_targets_that_it_hardly_holds_are_told(tmp_path):
    assert "only every 0.0078 there" in notes_of(tmp_path, 1e5 + Q)[1]
    assert len(notes_of(tmp_path, 1e4 + Q)) == 1
    # whole numbers below 2**24 are held exactly, and what is predicted of them is not
    assert "only every 1 there" in notes_of(tmp_path, 1e7 + Q.round())[1]


def test_a_constant_target_is_told(tmp_path):
    assert "target 'goal' is 5.5 in every sample" in notes_of(tmp_path, np.full(40, 5.5))[1]


def test_numbers_too_large_are_refused_with_their_row(tmp_path):
    large = Q.copy()
    large[3] = 1e308
    with pytest.raises(ConfigError, match=r"target 'goal' holds 1e\+308 in row 4,"):
        notes_of(tmp_path, large)
    with pytest.raises(ConfigError, match=r"column 'x' holds 1e\+308, as in row 4,"):
        notes_of(tmp_path, Q, x=large)
    with pytest.raises(ConfigError, match=r"array 'x' holds numbers such as 1e\+308 in row 4,"):
        read_inputs(large, "x", False)


def test_classes_are_counted_and_those_alike_told(tmp_path):
    labels = np.array(["yes", "yes ", "YES", "no"])[np.arange(100) % 4]
    first, alike = notes_of(tmp_path, labels)
    assert first.endswith("(a classification, 4 classes)")
    assert alike.startswith("classes 'YES' and 'yes' and 'yes ' differ in blanks or case alone")


def test_labels_of_minus_one_in_a_table_are_told(tmp_path):
    first, minus = notes_of(tmp_path, np.arange(99) % 3 - 1)
    assert first.endswith("3 classes)") and minus.startswith("33 of 99 labels are -1")
    assert len(notes_of(tmp_path, 2 * (np.arange(100) % 2) - 1)) == 1  # two classes
