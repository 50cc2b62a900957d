"""``truerisk.sweep``: what the command line does, and objects in the place of options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torchmetrics.classification import MulticlassF1Score

import truerisk
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
SHORT = ["trainer.max_epochs=2", "data.batch_size=20", "figures=false", "regularizer=[]"]
NOTEBOOK = Path(__file__).parents[1] / "docs" / "own_model.ipynb"


def given():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(90, 4, generator=draw) * 5 + 20
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), (
        x,
        (x[:, 0] // 4).long() % 3,
    )


@pytest.mark.parametrize("launcher", ["basic", "vectorized", "pool"])
def test_a_model_and_samples_of_ones_own(tmp_path, monkeypatch, launcher):
    monkeypatch.chdir(tmp_path)
    model, data = given()
    overrides = [*SHORT, "optimizer.lr=0.01,0.1", "seed=1,2", f"hydra/launcher={launcher}"]
    study = truerisk.sweep(overrides, model=model, data=data)
    assert [run.status for run in study.runs] == ["finished"] * 4
    assert study.folder.parent == tmp_path / "outputs"
    assert study.folder.name.startswith("optimizer.lr+seed,data=arrays,")
    for run in study.runs:
        changed = [f"optimizer.lr={run.config.optimizer.lr}", f"seed={run.config.seed.base}"]
        alone = truerisk.train(
            [*SHORT, *changed], model=model, data=data, folder=tmp_path / "alone"
        )
        expected = alone.summary["risk/test"].value
        assert run.summary["risk/test"].value == pytest.approx(expected, rel=1e-5)
        for path in sorted((tmp_path / "alone").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    best = min(run.summary["risk/val"].value for run in study.runs)
    assert study.best.summary["risk/val"].value == best
    assert study.best.predict(data[0]).values.shape == (90,)
    assert set(study.table["optimizer.lr"]) == {0.01, 0.1} and set(study.table["seed.base"]) == {
        1,
        2,
    }
    assert study.table["risk/val"].min() == best
    again = truerisk.sweep(overrides, model=model, data=data)
    assert [outcome.new for outcome in again.outcomes] == [False] * 4
    torch.nn.init.zeros_(model[0].weight)
    other = truerisk.sweep(overrides, model=model, data=data)
    assert all(outcome.new for outcome in other.outcomes)


class Counts(Callback):
    """Counts epochs into a file, so that each run's own copy is seen."""

    def __init__(self, path):
        self.path, self.epochs = str(path), 0

    def on_train_epoch_end(self, trainer, module):
        self.epochs += 1
        with open(self.path, "a") as file:
            file.write(f"{self.epochs} ")


def test_metrics_and_callbacks_of_ones_own(tmp_path):
    model, data = given()
    tell = Counts(tmp_path / "seen.txt")
    f1 = MulticlassF1Score(3, average="macro")
    study = truerisk.sweep(
        [*SHORT, "seed=1,2", "monitor=metric/f1/val", "hydra/launcher=vectorized"],
        model=model,
        data=data,
        metrics={"f1": f1},
        callbacks=[tell],
        folder=tmp_path / "study",
    )
    assert [run.status for run in study.runs] == ["finished"] * 2
    assert (tmp_path / "seen.txt").read_text() == "1 2 1 2 " and tell.epochs == 0
    best = max(run.summary["metric/f1/val"].value for run in study.runs)
    assert study.best.summary["metric/f1/val"].value == best == study.table["metric/f1/val"].max()
    # one run, measured with it too, is asked for the object when it is gone on with
    alone = truerisk.train(
        [*SHORT, "seed=1"], model=model, data=data, metrics=f1, folder=tmp_path / "a"
    )
    assert "metric/multiclass_f1score/test" in alone.summary
    with pytest.raises(ConfigError, match=r"metric\.multiclass_f1score: .* metrics=…"):
        truerisk.train(
            ["resume=" + str(tmp_path / "a"), "trainer.max_epochs=3"], model=model, data=data
        )
    with pytest.raises(ConfigError, match="two are called counts: give a dict"):
        truerisk.sweep(SHORT, model=model, data=data, callbacks=[tell, tell])


def test_a_data_frame(tmp_path):
    """It is read as the file of it is."""
    frame = pd.DataFrame({"size": np.arange(60) % 7, "form": ["round", "flat", "long"] * 20})
    frame["price"] = frame["size"] * 3.0 + (frame["form"] == "flat")
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = [*SHORT, "data.source.target=price", "loss=mse", "model=linear"]
    run = truerisk.train(asked, data=frame, folder=tmp_path / "a")
    file = ["data=table", f"data.source.path={tmp_path / 't.csv'}"]
    other = truerisk.train([*file, *asked], folder=tmp_path / "b")
    assert run.summary["risk/test"] == other.summary["risk/test"]
    np.testing.assert_array_equal(run.predict(frame).values, other.predict(frame).values)
    with pytest.raises(ConfigError, match=r"data\.source\.target is not set"):
        truerisk.train(SHORT, data=frame, folder=tmp_path / "c")


def test_options_by_name_and_mistakes(tmp_path):
    folder = tmp_path / "study"
    study = truerisk.sweep(["data=iris", *SHORT, "optimizer=sgd,adam"], folder=folder)
    assert study.folder == folder and len(study.runs) == 2
    model, _ = given()
    for overrides, objects, message in (
        (["model.width=1,2"], {"model": model}, "has no effect beside model="),
        (["optimizer.lrr=1,2"], {}, "did you mean 'lr'"),
        ("seed=1,2", {}, "takes a list of overrides"),
        (["loss=mse", "data=iris"], {}, "loss=mse is for|regression"),
    ):
        with pytest.raises(ConfigError, match=message):
            truerisk.sweep(overrides, folder=tmp_path / "wrong", **objects)


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    space: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), space)
    assert {run.status for run in space["study"].runs} == {"finished"}
    capsys.readouterr()
