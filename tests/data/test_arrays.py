from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, arrays
from truerisk.data.own_files import read_inputs

X = np.random.default_rng(0).normal(size=(40, 2, 3))
Y = np.arange(40) % 4 + 1


@pytest.fixture
def save(tmp_path):
    def save(**named):
        np.savez(tmp_path / "data.npz", **named)
        return str(tmp_path / "data.npz")

    return save


def test_classes_and_a_test_set(save):
    samples = arrays(save(x=X, y=Y, x_test=X[:5], y_test=Y[:5]))
    np.testing.assert_array_equal(samples.x.numpy(), X)
    np.testing.assert_array_equal(samples.y.numpy(), Y - 1)
    assert samples.class_names == ["1", "2", "3", "4"]
    np.testing.assert_array_equal(samples.test[1].numpy(), Y[:5] - 1)
    module = DataModule(lambda: samples, val=0.25)
    module.prepare()
    assert [len(module.train), len(module.val), len(module.test)] == [30, 10, 5]


def test_names_and_regressions(save):
    samples = arrays(save(a=X.astype("float32"), b=X[:, 0]), x="a", y="b")
    assert samples.task == "regression" and samples.y.shape == (40, 3)
    assert samples.x.dtype == torch.float32 and samples.test is None
    assert arrays(save(x=X[:, 0, 0], y=X[:, 0, 0])).x.shape == (40, 1)
    assert arrays(save(x=X, y=Y), task="regression").y.shape == (40, 1)
    assert arrays(save(x=X, y=np.array(["no", "yes"] * 20))).class_names == ["no", "yes"]
    assert arrays(save(x=(X > 0).astype("uint8"), y=Y)).x.dtype == torch.float32


@pytest.mark.parametrize(
    ("named", "options", "message"),
    [
        ({"z": X, "y": Y}, {}, "data.source.x: the file has no array 'x'"),
        ({"x": X, "label": Y}, {"y": "labl"}, "did you mean 'label'"),
        ({"x": X, "y": Y, "x_test": X}, {}, "has only one"),
        ({"x": X, "y": Y}, {"x_test": "xt"}, "data.source.x_test: the file has no array 'xt'"),
        ({"x": X.astype(str), "y": Y}, {}, "array 'x' holds <U"),
        ({"x": np.where(X > 2, np.nan, X), "y": Y}, {}, "array 'x' holds NaN or infinite"),
        (
            {"x": X, "y": np.where(Y > 2, np.nan, Y)},
            {},
            "20 of 40 samples have no label (null, NaN or an empty text): set ",
        ),
        ({"x": X, "y": Y + 0.5}, {"task": "classification"}, "array 'y' holds fractions"),
        (
            {"x": X, "y": np.stack([Y, Y], 1)},
            {"task": "classification"},
            "class labels are one number a sample",
        ),
        ({"x": X, "y": np.ones(40, int)}, {}, "fewer than two classes"),
        ({"x": X[:30], "y": Y}, {}, "30 inputs x but 40 targets y"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, {}, "class '5' is not among"),
        ({"x": np.array([{}], dtype=object), "y": Y}, {}, "not an .npz of plain number arrays"),
        ({"x": X, "y": Y}, {"task": "rank"}, "data.source.task is 'rank'"),
    ],
)
def test_mistakes_are_named(save, named, options, message):
    with pytest.raises(ConfigError) as error:
        arrays(save(**named), **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y},
            "array 'x_test' has samples of shape [1, 3]",
        ),
        ({"x": X[:0], "y": Y[:0]}, "there are no samples, as the targets have shape (0,)"),
        ({"x": np.zeros((40, 0)), "y": Y}, "array 'x' has shape [40, 0]: no number is in it"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y[:5]}, "40 inputs x but 5 targets y"),
    ],
)
def test_shapes_that_cannot_be_are_named(save, named, message):
    with pytest.raises(ConfigError) as error:
        arrays(save(**named))
    assert message in str(error.value)


def test_a_table_is_not_an_archive(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        ConfigError, match=r"is a table, and data=arrays reads an .npz: take data=tab"
    ):
        arrays(str(tmp_path / "t.csv"))


def test_whole_numbers_that_may_be_tokens_are_told(save):
    tokens = np.arange(80).reshape(40, 2)
    (note,) = arrays(save(x=tokens, y=Y)).notes
    assert note.startswith("array 'x' holds whole numbers, which are standardized")
    assert not arrays(save(x=tokens.astype("uint8"), y=Y)).notes
    assert not arrays(save(x=tokens, y=tokens), task="next_token").notes


def test_images_with_their_channels_last_are_told(save):
    (note,) = arrays(save(x=np.zeros((40, 16, 12, 3)), y=Y)).notes
    assert "[16, 12, 3]" in note and "transposed to [3, 16, 12]" in note
    assert not arrays(save(x=np.zeros((40, 3, 16, 12)), y=Y)).notes


@pytest.mark.parametrize("gap", [np.nan, "", -1])
def test_samples_without_a_label_are_counted_and_left_out(save, gap):
    whole = np.arange(40) % 3
    values = {"": whole.astype(str), -1: whole}.get(gap, whole + 0.5).copy()
    values[[3, 7]] = gap
    rows = {"x": X, "y": values, "x_test": X[:9], "y_test": values[:9], "group": np.arange(40)}
    path = save(**rows)
    if gap == -1:  # it may be a class
        samples = arrays(path)
        assert samples.class_names == ["-1", "0", "1", "2"]
        assert samples.notes[0].startswith("2 of 40 labels are -1, which is taken for a class: set")
    else:
        with pytest.raises(ConfigError, match=r"2 of 40 samples have no label.*unlabelled=drop"):
            arrays(path)
    samples = arrays(path, unlabelled="drop", aside=["group"])
    kept = np.delete(np.arange(40), [3, 7])
    assert samples.notes == ["2 of 40 samples have no label and are left out"]
    np.testing.assert_array_equal(samples.x.numpy(), X[kept])
    np.testing.assert_array_equal(samples.asides["group"], kept)
    np.testing.assert_array_equal(samples.test[0].numpy(), X[kept[:7]])
    expected = values[kept].astype(float)
    np.testing.assert_array_equal(samples.y.numpy().ravel(), expected)


def test_two_classes_of_minus_one_and_one_are_classes(save):
    samples = arrays(save(x=X, y=np.arange(40) % 2 * 2 - 1), unlabelled="drop")
    assert (samples.class_names, len(samples.y), samples.notes) == (["-1", "1"], 40, [])
    with pytest.raises(ConfigError, match=r"data.source.unlabelled is 'skip'"):
        arrays(save(x=X, y=Y), unlabelled="skip")
    with pytest.raises(ConfigError, match="none of 40 samples has a label"):
        arrays(save(x=X, y=np.full(40, np.nan)), unlabelled="drop")


def test_bad_files_are_named(tmp_path, save):
    save(x=X, y=Y)
    (tmp_path / "bad.npz").write_bytes(b"nothing of the kind")
    np.save(tmp_path / "one.npy", X)
    for name, message in (
        ("dat.npz", "did you mean 'data.npz'"),
        ("bad.npz", "is not an .npz"),
        ("one.npy", r"one.npy is a single array \[.+\], and an .npz is needed, .*numpy.savez\("),
    ):
        with pytest.raises(ConfigError, match=message):
            arrays(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"data\.source\.path is not set"):
        partial(arrays)()


def test_inputs_are_looked_at_without_a_copy():
    x = np.ones((1000, 100), np.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        read_inputs(x, "x", integers=False)
    assert max(event.self_cpu_memory_usage for event in seen.key_averages()) < 1000
