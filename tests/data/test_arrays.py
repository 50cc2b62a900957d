from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, arrays

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
        ({"x": X, "y": np.where(Y > 2, np.nan, Y)}, {}, "target holds NaN"),
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


def test_bad_files_are_named(tmp_path, save):
    save(x=X, y=Y)
    (tmp_path / "bad.npz").write_bytes(b"nothing of the kind")
    np.save(tmp_path / "one.npy", X)
    for name, message in (
        ("dat.npz", "did you mean 'data.npz'"),
        ("bad.npz", "is not an .npz"),
        ("one.npy", "is not an .npz"),
    ):
        with pytest.raises(ConfigError, match=message):
            arrays(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"data\.source\.path is not set"):
        partial(arrays)()
