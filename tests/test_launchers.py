"""Sweeps really run, one after another, side by side, and through submitit."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import submitit

from truerisk.cli import main
from truerisk.config.compose import compose
from truerisk.result import load_run
from truerisk.sweeps.launcher import submitit_launcher


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cell(study, name):
    """The folder of a cell, whose name ends in a hash."""
    return next(study.glob(f"{name}-*"))


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_two_jobs(tiny, here, capfd, launcher):
    args = [*tiny.overrides, "seed=1,2", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    args += ["report=false"]
    assert main(["train", "-m", *args]) == 0
    assert "2 runs: 2 finished" in capfd.readouterr().out
    runs = [load_run(cell(here / "sweep", f"seed={seed}")) for seed in (1, 2)]
    assert [run.config.seed.base for run in runs] == [1, 2]
    assert {run.status for run in runs} == {"finished"}
    for run in runs:
        alone = tiny(here / f"alone{run.config.seed.base}", [f"seed={run.config.seed.base}"])
        assert run.run.metrics.read_bytes() == alone.run.metrics.read_bytes()
    assert main(["train", "-m", *args]) == 0
    assert capfd.readouterr().out == "2 runs: 2 finished (2 of them before)\n"
    pids = {json.loads((run.folder / "status.json").read_text())["pid"] for run in runs}
    assert (os.getpid() in pids) == (launcher == "basic")


def test_a_single_run_tells_what_only_a_sweep_heeds(tiny, here, capfd):
    words = ["hydra/launcher=pool", "hydra.launcher.slots=2"]
    assert main(["train", *tiny.overrides, *words, "hydra.run.dir=run"]) == 0
    out = capfd.readouterr().out
    assert all(f"{word} has no effect on a single run: -m makes" in out for word in words)


def test_a_bad_cell_does_not_stop_the_others(tiny, here, capfd):
    sweep = ["optimizer.lr=1e30,0.01", "optimizer=sgd", "hydra.sweep.dir=sweep"]
    assert main(["train", "-m", *tiny.overrides, *sweep]) == 0
    assert "2 runs: 1 diverged, 1 finished" in capfd.readouterr().out
    folders = [cell(here / "sweep", f"optimizer.lr={lr}") for lr in ("1e+30", "0.01")]
    assert [load_run(folder).status for folder in folders] == ["diverged", "finished"]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_cell_that_was_cut_off_goes_on(tiny, here, killed_after, launcher):
    args = [*tiny.overrides, "seed=1,2", "study=s"]
    killed_after(5, lambda: main(["train", "-m", *args]))
    study = here / "outputs" / "s"
    identity = load_run(cell(study, "seed=1")).run.id
    assert main(["train", "-m", *args, f"hydra/launcher={launcher}"]) == 0
    for seed in (1, 2):
        run, alone = load_run(cell(study, f"seed={seed}")), tiny(here / str(seed), [f"seed={seed}"])
        assert run.status == "finished"
        assert run.run.metrics.read_bytes() == alone.run.metrics.read_bytes()
    assert load_run(cell(study, "seed=1")).run.id == identity


def test_slurm(here, capfd):
    args = ["--cfg=all", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    assert main(["train", *args, "hydra.launcher.gpus_per_node=2"]) == 0
    text = capfd.readouterr().out
    assert "partition: gpu" in text and "gpus_per_node: 2" in text and "SlurmLauncher" in text
    assert compose(["hydra/launcher=submitit_slurm", "model=linear"]).model


def test_what_submitit_cannot_do_is_refused(tiny, here, capsys):
    asked = ["-m", *tiny.overrides, "hydra/launcher=submitit_local", "+hydra.launcher.partitoin=a"]
    assert main(["train", *asked]) == 2
    error = capsys.readouterr().err
    assert "hydra.launcher: submitit says: Unknown argument 'partitoin'" in error


def test_a_thousand_cells_are_one_array(monkeypatch, here):
    """What is more goes into another, as SLURM takes no longer one unless told to."""
    arrays = []

    class Executor(submitit.DebugExecutor):
        def _internal_process_submissions(self, delayed):
            arrays.append(len(delayed))
            return super()._internal_process_submissions(delayed)

    monkeypatch.setattr(submitit_launcher, "make_executor", lambda cluster, job: Executor("."))
    assert submitit_launcher.TASKS == 1000
    monkeypatch.setattr(submitit_launcher, "TASKS", 3)
    works = [SimpleNamespace(cell=i) for i in range(4)]
    launcher = SimpleNamespace(run_works=lambda works: [work.cell for work in works])
    sent = submitit_launcher.send_shares([[work] for work in works], launcher, "slurm", {})
    assert list(sent) == [(i, i) for i in range(4)]
    assert arrays == [3, 1]


def test_a_squeue_that_is_not_there_says_nothing_of_a_job(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert submitit_launcher.is_queued("1")
