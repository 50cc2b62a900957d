"""Several labels a sample, from files to summaries."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import truerisk
from truerisk.cli import main
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
SHORT = ["data.source.task=multilabel", "loss=bce", "model=mlp", "model.width=8"]
SHORT += ["trainer.max_epochs=8", "optimizer.lr=0.02"]


@pytest.fixture
def labelled(tmp_path):
    """A table of two features and three labels that follow from them."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 2))
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0, x.sum(1) > 1], 1).astype(int)
    frame = pd.DataFrame(np.concatenate([x, y], 1), columns=["a", "b", "p", "q", "r"])
    frame.to_csv(tmp_path / "labels.csv", index=False)
    np.savez(tmp_path / "labels.npz", x=x, y=y)
    return tmp_path


def sources(folder):
    yield ["data=table", f"data.source.path={folder}/labels.csv", "data.source.target=[p,q,r]"]
    yield ["data=arrays", f"data.source.path={folder}/labels.npz"]


def test_labels_train_from_a_table_and_from_arrays(labelled, tmp_path, capsys):
    for number, source in enumerate(sources(labelled)):
        run = truerisk.train([*source, *SHORT], folder=tmp_path / str(number))
        assert run.status == "finished" and run.task == "multilabel"
        for split in ("train", "val", "test"):
            error = run.summary[f"error/{split}"]
            assert 0 <= error.value < 0.2 and run.summary[f"risk/{split}"].value < 0.5
        assert run.summary["error/train"].stderr == 0 < run.summary["error/test"].stderr
        run.report()
        assert "0-1 error a label, %" in capsys.readouterr().out
        assert run.model(run_inputs(run)).shape[1] == 3


def run_inputs(run):
    import torch

    return torch.zeros(2, *run.run.metadata()["data"]["input_shape"])


def test_the_error_is_a_mean_over_labels_with_its_standard_error(labelled, tmp_path):
    import torch

    from truerisk.assemble import assemble

    source = next(sources(labelled))
    run = truerisk.train([*source, *SHORT], folder=tmp_path / "run")
    data = assemble(run.config).data
    with torch.no_grad():
        wrong = (run.network(data.test.x.float()) > 0) != (data.test.y > 0)
    shares = wrong.double().mean(1)
    error = run.summary["error/test"]
    assert error.value == pytest.approx(float(shares.mean()), rel=1e-6)
    expected = float(shares.std()) / math.sqrt(len(shares))
    assert error.stderr == pytest.approx(expected, rel=1e-6)


def test_what_needs_one_class_a_sample_is_refused(labelled, tmp_path):
    source = next(sources(labelled))
    for overrides, message in (
        (["regularizer=[entropy]"], "regularizer=entropy needs one class a sample"),
        (["loss=hinge"], "for multilabel there are loss=bce"),
        (["data.label_noise=0.1"], "multi-label data has no class labels"),
    ):
        with pytest.raises(ConfigError, match=message):
            truerisk.train([*source, *SHORT, *overrides], folder=tmp_path / "refused")


def test_labels_are_stacked(labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = next(sources(labelled))
    sweep = ["hydra/launcher=vectorized", "seed=1,2", "report=false", "figures=false", "study=s"]
    assert main(["train", "-m", *source, *SHORT, *sweep]) == 0
    for seed in (1, 2):
        alone = truerisk.train([*source, *SHORT, f"seed={seed}"], folder=tmp_path / str(seed))
        folders = [p.parent for p in (tmp_path / "outputs/s").rglob("summary.json")]
        runs = [truerisk.load_run(folder) for folder in folders]
        ours = next(r for r in runs if r.config.seed.base == seed)
        for name in ("risk/test", "error/test", "error/val"):
            assert ours.summary[name].value == pytest.approx(alone.summary[name].value, rel=1e-4)
