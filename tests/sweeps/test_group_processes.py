"""Processes that share a group end as one: by a signal, or with the process that forked them."""

from __future__ import annotations

import os
import signal
import time

import pytest

from truerisk.cli import main
from truerisk.engine.loop import TrainingLoop
from truerisk.engine.stacked.backend import StackedBackend
from truerisk.result import load_run
from truerisk.sweeps import locks
from truerisk.sweeps.launcher import group_processes
from truerisk.sweeps.launcher.group_processes import split_large_groups

ARGS = ["data=iris", "model.width=4", "trainer.max_epochs=2000", "seed=range(4)", "study=s"]
ARGS += ["hydra/launcher=vectorized", "hydra.launcher.processes=2", "report=false", "figures=false"]


@pytest.fixture
def started(tmp_path, monkeypatch, fork):
    """A sweep in a process group of its own, slow to save; its two workers' ids."""
    monkeypatch.chdir(tmp_path)
    step, save = StackedBackend.take_step, TrainingLoop.save

    def noted(backend, batch):
        (tmp_path / f"{os.getpid()}.began").touch()
        return step(backend, batch)

    def slow(loop, rows):
        time.sleep(0.3)
        save(loop, rows)

    def work():
        os.setpgrp()
        monkeypatch.setattr(TrainingLoop, "save", slow)
        monkeypatch.setattr(StackedBackend, "take_step", noted)
        return main(["train", "-m", *ARGS])

    child = fork(work)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*.began"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    return child, [int(path.stem) for path in tmp_path.glob("*.began")]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_with_a_parent_that_is_killed(started):
    """It held the claims: whoever goes on with the cells must find nobody at them."""
    child, workers = started
    assert len(workers) == 2
    child.signal(signal.SIGKILL)
    child.wait()
    until = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_ctrl_c_that_reaches_all_of_them_saves_all(started, tmp_path):
    child, workers = started
    assert len(workers) == 2
    os.killpg(child.pid, signal.SIGINT)
    ended = child.wait()
    assert ended.code == 130 and "Traceback" not in ended.text
    assert "the same command again goes on" in ended.text
    runs = [load_run(path) for path in (tmp_path / "outputs" / "s").glob("*-*/")]
    assert [run.status for run in runs] == ["interrupted"] * 4
    assert all(run.run.last.exists() for run in runs)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_large_group_is_claimed_in_parts(tiny, tmp_path, monkeypatch, processes):
    """What another command has of it by then is left to it, and the rest is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(group_processes, "MOST_CLAIMED", 2)
    held, claim = [], group_processes.claim_cells

    def noted(cells):
        held.append(len(cells) + len(locks._locked))
        return claim(cells)

    monkeypatch.setattr(group_processes, "claim_cells", noted)
    asked = [*tiny.overrides, "study=s", "seed=range(7)", "report=false", "figures=false"]
    asked += ["hydra.launcher.size=1", f"hydra.launcher.processes={processes}"]
    assert main(["train", "-m", *asked, "hydra/launcher=vectorized"]) == 0
    runs = [load_run(path) for path in (tmp_path / "outputs" / "s").glob("*-*/")]
    assert [run.status for run in runs] == ["finished"] * 7
    # beside a part whose last cells are still trained, the next one
    assert len(held) > 1 and max(held) <= {1: 2, 2: 8}[processes]
    assert not locks._locked


def test_parts_of_a_large_group_are_whole_blocks():
    cells = list(range(3000))
    parts = split_large_groups([cells, cells[:5]], None, 1)
    assert [cell for part in parts for cell in part] == [*cells, *cells[:5]]
    assert list(map(len, parts)) == [1000, 1000, 1000, 5]
    assert list(map(len, split_large_groups([cells], 1500, 1))) == [1500, 1500]
    assert list(map(len, split_large_groups([cells], 300, 2))) == [1500, 1500]
