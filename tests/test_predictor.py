"""A run's model takes raw inputs, of the run's own kind, and says what the run measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate
from truerisk.task.classification import label_name

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")

KINDS = {
    "single": (np.float32, (4,), ""),
    "double numbers": (np.float64, (4,), ""),
    "whole numbers": (np.int64, (4,), ""),
    "bytes": (np.uint8, (4,), "data.standardize=global"),
    "double precision": (np.float64, (4,), "trainer.precision=64-true"),
    "half": (np.float32, (4,), "trainer.precision=bf16-mixed"),
    "not standardized": (np.float32, (4,), "data.standardize=none"),
    "channels": (np.float32, (2, 8, 8), "data.standardize=channel model=cnn model.width=4"),
    "averaged": (np.float32, (4,), "model.normalization=batch regularizer=[ema,dropout]"),
}


def draw_samples(path, dtype, shape, seed, regression=False):
    draw = np.random.default_rng(seed)
    x = (draw.random((60, *shape)) * 90 + 100).astype(dtype)
    y = np.array(["no", "maybe", "yes"])[(x.reshape(60, -1)[:, 0].astype(int) // 31) % 3]
    if regression:
        y = x.reshape(60, -1)[:, :1].astype("float64")
    np.savez(path, x=x, y=y)
    return x, y


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_at_raw_inputs_are_what_an_evaluation_measures(tiny, tmp_path, kind):
    dtype, shape, overrides = KINDS[kind]
    draw_samples(tmp_path / "old.npz", dtype, shape, 0)
    x, y = draw_samples(tmp_path / "new.npz", dtype, shape, 1)
    run = tiny(tmp_path / "run", ["data=arrays", f"data.source.path={tmp_path / 'old.npz'}",
                                  "data.batch_size=16", *overrides.split()])  # fmt: skip
    new = [f"data.source.path={tmp_path / 'new.npz'}", "data.test=all"]
    measured = evaluate(tmp_path / "run", new).summary
    found = run.predict(x)
    assert found.class_names == ["maybe", "no", "yes"]
    labels = torch.tensor([found.class_names.index(label) for label in y])
    losses = cross_entropy(found.outputs, labels)
    assert losses.item() == pytest.approx(measured["risk/test"].value, rel=2e-7)
    assert (found.values != y).mean() == pytest.approx(measured["error/test"].value)
    assert torch.allclose(found.probabilities.sum(1), torch.ones(60).to(found.outputs))
    assert torch.equal(found.probabilities, found.outputs.softmax(1))
    loaded = truerisk.load_run(tmp_path / "run").model
    with torch.no_grad():
        assert torch.equal(loaded(torch.as_tensor(x)), found.outputs)
    state = loaded.state_dict()
    assert ("mean" in state) == ("none" not in overrides)


@pytest.mark.parametrize(
    ("way", "labels"),
    [
        *(("given", labels) for labels in ("number", "half", "bool", "text")),
        *((way, "number") for way in ("frame", "csv", "arrays")),
        ("csv", "bool"),
    ],
)
def test_predicted_classes_are_of_the_type_of_the_labels(tmp_path, monkeypatch, way, labels):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(60, 2))
    kinds = {"number": [-1, 2], "half": [0.5, 1.0], "bool": [False, True], "text": ["no", "yes"]}
    y = np.array(kinds[labels])[(x[:, 0] > 0).astype(int)]
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y})
    given = {"given": (x, y), "frame": frame}.get(way)
    overrides = ["data.source.task=classification"]
    if way == "csv":
        frame.to_csv("t.csv", index=False)
        overrides += ["data=table", "data.source.path=t.csv"]
    if way == "arrays":
        np.savez("t.npz", x=x, y=y)
        overrides += ["data=arrays", "data.source.path=t.npz"]
    if way in ("frame", "csv"):
        overrides += ["data.source.target=y"]
    recipe = ["model=linear", "optimizer.lr=1", "trainer.max_epochs=20", "figures=false"]
    run = truerisk.train([*recipe, *overrides], data=given)
    inputs = frame if way in ("frame", "csv") else x
    truerisk.train([f"resume={run.folder}", "trainer.max_epochs=21"], data=given)
    for one in (run, truerisk.load_run(run.folder)):
        found = one.predict(inputs)
        assert (found.values == y).mean() > 0.8
        kind = {"number": int, "half": float | int, "bool": bool, "text": str}[labels]
        assert all(isinstance(value, kind) for value in found.values.tolist())
        assert found.class_names == list(map(label_name, kinds[labels]))


def test_a_regression(tiny, tmp_path):
    draw_samples(tmp_path / "old.npz", np.float64, (3,), 0, regression=True)
    x, y = draw_samples(tmp_path / "new.npz", np.float64, (3,), 1, regression=True)
    run = tiny(tmp_path / "run", ["data=arrays", f"data.source.path={tmp_path / 'old.npz'}",
                                  "loss=mse", "data.batch_size=16"])  # fmt: skip
    new = [f"data.source.path={tmp_path / 'new.npz'}", "data.test=all"]
    measured = evaluate(tmp_path / "run", new).summary["risk/test"].value
    found = run.predict(x.tolist())
    assert found.probabilities is None and found.values.shape == (60, 1)
    loss = mse_loss(torch.as_tensor(found.values), torch.as_tensor(y))
    assert loss.item() == pytest.approx(measured, rel=1e-6)


def test_what_are_no_inputs_is_refused(tiny, tmp_path):
    run = tiny(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"have shape \[2, 3\].*trained on \[n, 4\]"):
        run.predict(np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="NaN"):
        run.predict(np.full((2, 4), np.nan))
    with pytest.raises(ConfigError, match="of no numbers"):
        run.predict([["a"] * 4])
