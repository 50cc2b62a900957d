"""Sweeps of W&B: the YAML, and what its agents call."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

import truerisk
from truerisk.cli import main
from truerisk.core.errors import UserError
from truerisk.sweeps.wandb_sweep import write_sweep


def test_axes_are_parameters_and_the_rest_stands_in_the_command():
    text = write_sweep(
        [
            *("data=iris", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.depth=1,2"),
            *("model.width=int(interval(8,64))", "regularizer=[l2],[dropout,l2]"),
            *(
                "scheduler.warmup=uniform(0.1,0.2)",
                "data.batch_size=randint(8,33)",
                "seed=range(2)",
            ),
        ]
    )
    sweep = yaml.safe_load(text)
    assert (sweep["method"], sweep["metric"]) == ("bayes", {"name": "risk/val", "goal": "minimize"})
    kind, *ends = sweep["parameters"].pop("scheduler.warmup").values()
    assert kind == "uniform" and ends == pytest.approx([0.1, 0.3])
    assert sweep["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
        "model.depth": {"values": [1, 2]},
        "model.width": {"distribution": "int_uniform", "min": 8, "max": 64},
        "regularizer": {"values": ["[l2]", "[dropout,l2]"]},
        "data.batch_size": {"distribution": "int_uniform", "min": 8, "max": 32},
        "seed.base": {"values": [0, 1]},
    }
    command = sweep["command"]
    assert command == ["${env}", "truerisk", "train", "data=iris", "logger=[wandb]", "${args}"]
    grid = yaml.safe_load(write_sweep(["optimizer=sgd,adam", "logger=[wandb,tensorboard]"]))
    assert grid["method"] == "grid" and "logger=[wandb,tensorboard]" in grid["command"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=iris"], "nothing is swept"),
        (["optimizer.lrr=1,2"], "did you mean 'lr'"),
        (["optimizer.lr=gamma(1,2)"], "W&B draws from"),
        (["optimizer.lr=1,2", "hydra/launcher=pool"], "W&B chooses the points"),
    ],
)
def test_what_w_and_b_cannot_run_is_told(overrides, message):
    with pytest.raises(UserError, match=message):
        write_sweep(overrides)
    with pytest.raises(UserError, match="an axis here is an interval"):
        write_sweep(["optimizer.lr=interval(1,2)"], method="grid")


def test_the_command_writes_the_file(tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    assert (
        main(["wandb-sweep", "optimizer.lr=1,2", "--out", str(file), "--metric", "error/val"]) == 0
    )
    assert yaml.safe_load(file.read_text())["metric"]["name"] == "error/val"
    assert f"wandb sweep {file}" in capsys.readouterr().out


def test_an_agents_arguments_are_overrides(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fixed = ["data=iris", "trainer.max_epochs=1", "figures=false", "hydra.run.dir=run"]
    agent = ["--model.width=7", "--optimizer.lr=0.25", "--regularizer=[l2]", "--study=None"]
    assert main(["train", *fixed, *agent]) == 0
    config = truerisk.load_run("run").config
    assert (config.model.width, config.optimizer.lr, list(config.regularizer)) == (7, 0.25, ["l2"])
    assert main(["train", "--optimizer.lrr=1"]) == 2
    assert "did you mean 'lr'" in capsys.readouterr().err


def test_a_run_that_an_agent_has_started_is_taken_up(tmp_path):
    """As ``wandb.agent(sweep, function)`` does it: one run, which the agent ends."""
    code = (
        "import os, wandb\n"
        "from truerisk.logger import WandB\n"
        "run = wandb.init(mode='offline', settings=wandb.Settings(silent=True, console='off'))\n"
        "assert run.sweep_id == 'abc'\n"
        "logger = WandB('run', 'id1', {'optimizer': {'lr': 0.5}}, mode='offline')\n"
        "logger.log_metrics({'risk/val': 0.5, 'epoch': 1}, step=1)\n"
        "logger.log_summary({}, 'finished')\n"
        "logger.finalize('success')\n"
        "assert run.config['optimizer'] == {'lr': 0.5} and wandb.run is run\n"
        "run.log({'mine': 1})\n"
        "run.finish()\n"
    )
    environment = {**os.environ, "WANDB_SWEEP_ID": "abc", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (part,) = tmp_path.glob("**/offline-run-*/")
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", part],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    rows = [json.loads(row) for row in shown.splitlines()]
    assert any("risk/val" in r["history"]["item"] for r in rows if r["type"] == "history")
