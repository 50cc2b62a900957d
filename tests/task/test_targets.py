"""Targets of any kind, from files to summaries: what the loss is for decides what they are."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import truerisk
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
SHORT = ["model=linear", "trainer.max_epochs=1"]


@pytest.fixture
def files(tmp_path):
    """One set of 90 samples, as a table and as arrays, with targets of several kinds."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(90, 2))
    rating, goals = draw.integers(1, 6, 90), draw.poisson(2, 90)
    flags = (x > 0).astype(int)
    one_hot = np.eye(3, dtype="float32")[np.arange(90) % 3]
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(rating=rating, goals=goals)
    frame[["p", "q"]] = flags
    frame[["x", "y", "z"]] = one_hot.astype(int)
    frame.to_csv(tmp_path / "t.csv", index=False)
    arrays = {"rating": rating, "both": np.stack([rating, goals], 1), "flags": flags}
    arrays |= {"one_hot": one_hot, "column": rating[:, None], "truth": flags[:, :1] == 1}
    np.savez(tmp_path / "t.npz", x=x, **arrays)
    return tmp_path


def source(folder, target):
    if isinstance(target, str):
        return ["data=arrays", f"data.source.path={folder}/t.npz", f"data.source.y={target}"]
    return [
        "data=table",
        f"data.source.path={folder}/t.csv",
        f"data.source.target=[{','.join(target)}]",
        "data.source.columns=[a,b]",
    ]


@pytest.mark.parametrize(
    ("target", "loss", "task", "outputs"),
    [
        (["rating"], "mse", "regression", 1),
        ("rating", "mae", "regression", 1),
        (["rating"], "cross_entropy", "classification", 5),
        (["rating", "goals"], "mse", "regression", 2),
        ("both", "huber", "regression", 2),
        (["p", "q"], "mse", "regression", 2),
        (["p", "q"], "bce", "multilabel", 2),
        ("flags", "bce", "multilabel", 2),
        ("one_hot", "cross_entropy", "classification", 3),
        ("one_hot", "mse", "regression", 3),
        (["x", "y", "z"], "cross_entropy", "classification", 3),
        ("column", "cross_entropy", "classification", 5),
        ("truth", "bce", "classification", 2),
    ],
)
def test_the_loss_says_what_targets_are(files, target, loss, task, outputs):
    folder = files / "run"
    options = [*source(files, target), f"loss={loss}", *SHORT]
    run = truerisk.train(options, folder=folder)
    assert (run.status, run.task) == ("finished", task)
    data = json.loads((folder / "metadata.json").read_text())["data"]
    assert data["num_outputs"] == outputs
    if target == ["x", "y", "z"]:
        assert data["class_names"] == target


@pytest.mark.parametrize(
    ("target", "loss", "words"),
    [
        (["p", "q"], "cross_entropy", "the data's task is multilabel; for multilabel .* loss=bce"),
        ("both", "cross_entropy", "the data's task is regression; .*data.source.task says"),
    ],
)
def test_targets_that_do_not_fit_the_loss_are_refused(files, target, loss, words):
    with pytest.raises(ConfigError, match=words):
        truerisk.train([*source(files, target), f"loss={loss}", *SHORT], folder=files / "run")


def test_lists_of_labels_are_given_from_python(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    labels = [["a"], ["b", "c"], []] * 20
    run = truerisk.train([*SHORT, "loss=bce"], data=(x, labels), folder=tmp_path / "run")
    data = run.run.metadata()["data"]
    assert (run.task, data["class_names"]) == ("multilabel", ["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"data: 20 of 60 samples have no label .* leave those"):
        truerisk.train(SHORT, data=(x, ["a", "b", None] * 20), folder=tmp_path / "other")
