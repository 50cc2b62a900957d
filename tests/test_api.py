"""The Python side: truerisk.train, truerisk.load_run, and what they leave as it was."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import cross_entropy

import truerisk
from truerisk.assemble import assemble
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


def numbers(result):
    return {name: tuple(m) for name, m in result.summary.items()}


def test_train_takes_overrides_or_a_configuration(tiny, tmp_path):
    by_words = truerisk.train([*tiny.overrides, "seed=3"], folder=tmp_path / "words")
    by_config = truerisk.train(compose([*tiny.overrides, "seed=3"]), folder=tmp_path / "config")
    other = truerisk.train([*tiny.overrides, "seed=4"], folder=str(tmp_path / "other"))
    assert isinstance(by_words, truerisk.RunResult)
    assert (by_words.folder, by_words.status) == (tmp_path / "words", "finished")
    assert numbers(by_words) == numbers(by_config) != numbers(other)
    assert by_words.config == by_config.config


def test_a_fresh_folder_below_outputs(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {truerisk.train(tiny.overrides).folder for _ in range(2)}
    assert len(folders) == 2
    assert {f.parent.parent for f in folders} == {tmp_path / "outputs"}


def test_load_run(tiny, tmp_path):
    trained = tiny(tmp_path / "run", ["regularizer=[ema,dropout,l2]", "model.normalization=batch"])
    loaded = truerisk.load_run(str(tmp_path / "run"))
    assert isinstance(loaded.config, DictConfig) and isinstance(loaded.history, pd.DataFrame)
    assert loaded.config.model.width == 8
    assert numbers(loaded) == numbers(trained)
    assert repr(loaded) == f"RunResult('{tmp_path / 'run'}', status='finished')"
    assert list(loaded.history.columns) == ["step", "epoch", "name", "value"]
    risk = loaded.history.query("name == 'risk/val'").set_index("epoch")["value"]
    best = loaded.summary["risk/val"]
    assert risk.idxmin() == best.epoch
    assert risk.min() == pytest.approx(best.value, rel=1e-6)


def test_the_model_has_the_best_weights(tiny, tmp_path):
    result = tiny(tmp_path / "run", ["regularizer=[ema,dropout]", "model.normalization=batch"])
    loaded = truerisk.load_run(tmp_path / "run")
    model, data = loaded.network, assemble(result.config).data
    assert not model.training
    with torch.no_grad():
        outputs = model(data.test.x.float())
    risk = cross_entropy(outputs.double(), data.test.y).item()
    assert risk == pytest.approx(result.summary["risk/test"].value, rel=1e-6)
    with torch.no_grad():
        assert torch.allclose(loaded.model(data.raw(data.test.x)), outputs, atol=1e-5)
    wrong = (outputs.argmax(1) != data.test.y).double().mean().item()
    assert wrong == result.summary["error/test"].value
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt")["state"]
    assert all(torch.equal(tensor, best[k]) for k, tensor in model.state_dict().items())
    assert len(list(model.parameters())) and all(p.requires_grad for p in model.parameters())


def test_a_model_in_double_precision(tiny, tmp_path):
    result = tiny(tmp_path / "run", ["trainer.precision=64-true"])
    assert {p.dtype for p in result.model.parameters()} == {torch.float64}


def test_no_run(tmp_path):
    with pytest.raises(ConfigError, match=r"not the folder of a run \(no config.yaml\)"):
        truerisk.load_run(tmp_path / "nowhere")


def test_a_mistake_is_raised(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"optimizer\.lrr.*did you mean 'lr'"):
        truerisk.train(["optimizer.lrr=1"], folder=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        tiny(tmp_path / "run", ["optimizer.lr=fast"])
    cfg = compose(tiny.overrides)
    OmegaConf.set_struct(cfg, False)
    cfg.step.clipp = 1
    with pytest.raises(ConfigError, match=r"step\.clipp"):
        truerisk.train(cfg, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_override_outside_a_list_is_told_so():
    with pytest.raises(ConfigError, match=r"list of overrides, as in train\(\['model.width=5'\]\)"):
        truerisk.train("model.width=5")


def test_a_study_is_refused_where_it_would_be_ignored(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="folder= says where a run goes"):
        truerisk.train([*tiny.overrides, "study=mine"])
    assert not list(tmp_path.iterdir())
    assert truerisk.train([*tiny.overrides, "study=mine"], folder="here").status == "finished"


def test_what_only_the_command_line_heeds_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"hydra.run.dir=mine .* folder=…\) says where"):
        truerisk.train([*tiny.overrides, "hydra.run.dir=mine"])
    for text in ("hydra/launcher=pool", "+hydra.launcher.slots=2"):
        with pytest.raises(ConfigError, match=r"heeded on the command line; sweep\("):
            truerisk.build_module([*tiny.overrides, text])
    assert not list(tmp_path.iterdir())


def test_twice_in_one_process(tiny, tmp_path):
    overrides = ["regularizer=[dropout,mixup]"]
    torch.manual_seed(1)
    first = tiny(tmp_path / "first", overrides)
    torch.manual_seed(2)
    second = tiny(tmp_path / "second", overrides)
    assert numbers(first) == numbers(second)
    assert (tmp_path / "first/metrics.csv").read_bytes() == second.run.metrics.read_bytes()
    assert first.run.id != second.run.id


def test_in_threads(tiny, tmp_path):
    results = {}

    def work(name):
        results[name] = tiny(tmp_path / name)

    thread = threading.Thread(target=work, args=["thread"])
    thread.start()
    thread.join()
    assert numbers(results["thread"]) == numbers(tiny(tmp_path / "main"))


def world():
    """What a run must leave as it was."""
    names = [None, "lightning", "lightning.pytorch", "lightning.fabric", "torch", "hydra"]
    return {
        "torch rng": torch.get_rng_state().tolist(),
        "numpy rng": str(np.random.get_state()),
        "python rng": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in names],
        "handlers": [list(logging.getLogger(name).handlers) for name in names],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "hook": (sys.excepthook, threading.excepthook),
        "path": list(sys.path),
    }


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.precision=64-true", "regularizer=[dropout]"],
        ["trainer.precision=bf16-mixed", "threads=2"],
        ["trainer=debug"],
        ["data=mnist1d", "data.num_train=40", "model=gru", "trainer.max_epochs=1"],
        ["optimizer=sgd", "optimizer.lr=1e30"],
    ],
    ids=["plain", "double", "bfloat16", "debug", "recurrent", "diverged"],
)
def test_nothing_else_changes(tiny, tmp_path, overrides):
    tiny(tmp_path / "imports")
    torch.manual_seed(5)
    before = world()
    result = tiny(tmp_path / "run", overrides)
    assert result.model is not None and len(result.history)
    after = world()
    assert {k for k in before if before[k] != after[k]} == set()


def test_nothing_changes_when_it_fails(tiny, tmp_path, monkeypatch):
    tiny(tmp_path / "imports")
    before = world()

    def broken(*_):
        raise RuntimeError

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("truerisk.engine.step.Step.__call__", broken)
        tiny(tmp_path / "run", ["trainer.precision=64-true"])
    after = world()
    assert {k for k in before if before[k] != after[k]} == set()


def test_importing_truerisk_is_light():
    heavy = {"torch", "lightning", "hydra", "pandas"}
    code = f"import truerisk, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_facade_has_every_name_and_none_of_a_module(tmp_path):
    """In a fresh process, as the names of modules that have been imported hide others."""
    code = "import truerisk as t; print(*(getattr(t, name).__name__ for name in t.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == truerisk.__all__
    folder = Path(truerisk.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(truerisk.__all__)
    with pytest.raises(AttributeError, match="'truerisk' has no attribute 'trian'"):
        getattr(truerisk, "trian")
