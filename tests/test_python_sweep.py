"""``truerisk.sweep``: what the command line does, and objects in the place of options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

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
    assert study.folder == tmp_path / "outputs" / "optimizer.lr+seed"
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


def test_options_by_name_and_mistakes(tmp_path):
    folder = tmp_path / "study"
    study = truerisk.sweep(["data=iris", *SHORT, "optimizer=sgd,adam"], folder=folder)
    assert study.folder == folder and len(study.runs) == 2
    model, _ = given()
    for overrides, objects, message in (
        (["model.width=1,2"], {"model": model}, "has no effect beside model="),
        (["optimizer.lrr=1,2"], {}, "did you mean 'lr'"),
        ("seed=1,2", {}, "takes a list of overrides"),
        (["loss=mse", "data=iris"], {}, "loss=MSELoss is for|regression"),
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
