"""joblib's workers, really started: signals, a killed parent, a lost worker, stale plugins."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode

from truerisk.config.compose import ConfigLoader, hydra_session
from truerisk.config.parts import PRIMARY
from truerisk.outcome import Outcome
from truerisk.result import load_run
from truerisk.sweeps.launcher.joblib_launcher import JoblibLauncher
from truerisk.sweeps.sweep_cell import SweepCell

RECIPE = ["data=iris", "model.width=4", "trainer.max_epochs=20000", "study=s", "report=false"]
RECIPE += ["figures=false", "checkpoint_seconds=1"]


@pytest.fixture
def started(here):
    """Start a sweep of three long cells, two at once; its process, and the two that train."""

    def start(launcher, *options):
        command = [sys.executable, "-m", "truerisk", "train", "-m", *RECIPE, "seed=1,2,3"]
        command += [f"hydra/launcher={launcher}", *options]
        said = (here / "said.txt").open("w")
        process = subprocess.Popen(
            command, cwd=here, stdout=said, stderr=said, start_new_session=True
        )
        processes.append(process)
        wait_until(lambda: len(list(here.glob("outputs/s/*/checkpoints/last.ckpt"))) == 2)
        return process, [run.run.status()["pid"] for run in runs()]

    def runs():
        return [load_run(file.parent) for file in here.glob("outputs/s/*/status.json")]

    processes = []
    start.runs = runs
    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("launcher", "option"),
    [
        ("joblib", "hydra.launcher.n_jobs=2"),
        ("pool", "hydra.launcher.slots=2"),
        ("ray", "hydra.launcher.cpus=1"),
    ],
)
def test_workers_end_with_a_parent_that_is_killed(started, launcher, option):
    """Whoever goes on with the cells must find nobody at them."""
    if launcher == "ray":
        pytest.importorskip("ray", reason="Ray is large, and so no part of the extra for tests")
    process, workers = started(launcher, option)
    assert len({*workers, process.pid}) == 3
    process.kill()
    process.wait()
    gone = wait_until(lambda: not any(map(alive, workers)), 5)
    for pid in filter(alive, workers):
        os.kill(pid, signal.SIGKILL)
    assert gone


def test_the_processes_of_a_cell_end_with_it(here):
    """Of `trainer=ddp` below a worker of the pool: all are gone once the first of all is killed."""
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "seed=1,2"]
    command = [sys.executable, "-m", "truerisk", "train", "-m", *RECIPE, *ddp]
    command += ["hydra/launcher=pool", "hydra.launcher.slots=1"]
    sweep = subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL)

    def processes():
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "cwd").readlink() == here:
                    found.append(int(path.name))
        return set(found) - {os.getpid()}

    try:
        assert wait_until(lambda: list(here.glob("outputs/s/*/checkpoints/last.ckpt")), 120)
        assert len(processes()) == 4  # of the sweep, the pool, and the cell's two
    finally:
        sweep.kill()
        sweep.wait()
    gone = wait_until(lambda: not processes(), 10)
    for pid in processes():
        os.kill(pid, signal.SIGKILL)
    assert gone


def test_ctrl_c_that_reaches_the_whole_group_saves_every_cell(started, here):
    process, workers = started("joblib", "hydra.launcher.n_jobs=2")
    os.killpg(process.pid, signal.SIGINT)
    code, said = process.wait(60), (here / "said.txt").read_text()
    assert code == 130 and "the same command again goes on" in said and "Traceback" not in said
    assert [run.run.status()["status"] for run in started.runs()] == ["interrupted"] * 2
    assert not any(map(alive, workers))


def test_a_lost_worker_costs_no_outcome_that_was_there(tmp_path, capsys):
    class Work:  # cloudpickle takes it along
        def __init__(self, number):
            folder = tmp_path / f"seed={number}-0123456789"
            self.number, self.cell = number, SweepCell((), (), {}, folder)

        def __call__(self):
            if self.number == 0:
                return Outcome(0.5, "finished")
            time.sleep(1)  # so that the first one's outcome is on its way
            os.kill(os.getpid(), signal.SIGKILL)

    works = [Work(i) for i in range(3)]
    outcomes = JoblibLauncher(n_jobs=2).run_works(works)
    assert [outcome.status for outcome in outcomes] == ["finished", "failed", "failed"]
    assert capsys.readouterr().out.count("TerminatedWorkerError: A worker process managed by") == 2


def test_one_job_at_once_needs_no_worker(sweep, cells):
    assert sweep("seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1") == 0
    assert {run.run.status()["pid"] for run in cells().values()} == {os.getpid()}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("backend=threading", "cells run in joblib's loky workers"),
        ("require=sharedmem", "sharedmem"),
        ("n_jobs=0", "n_jobs"),
    ],
)
def test_what_joblib_cannot_do_is_refused(sweep, capsys, option, said):
    assert sweep("seed=1,2", "hydra/launcher=joblib", f"hydra.launcher.{option}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: hydra.launcher") and said in error


def test_a_plugin_of_the_same_name_changes_nothing(recwarn):
    """hydra-joblib-launcher may be installed still, and registers its option as ``joblib``."""
    store = ConfigStore.instance()
    stale = {"_target_": "hydra_plugins.Stale", "n_jobs": -1, "stale": True}
    before = store.repo["hydra"]["launcher"].get("joblib.yaml")
    store.store(group="hydra/launcher", name="joblib", node=stale, provider="stale")
    try:
        with hydra_session():
            asked = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]
            node = ConfigLoader().load_configuration(PRIMARY, asked, RunMode.RUN).hydra.launcher
    finally:
        store.repo["hydra"]["launcher"]["joblib.yaml"] = before
        if before is None:
            del store.repo["hydra"]["launcher"]["joblib.yaml"]
    assert node._target_.endswith(".JoblibLauncher") and node.n_jobs == 3 and "stale" not in node
    assert not [str(warning.message) for warning in recwarn if "schema" in str(warning.message)]
