"""Cells that train in several processes each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from truerisk.result import load_run

TINY = ["data=iris", "data.batch_size=30", "model.width=8"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A sweep of two cells in two processes each, started twice, from the command line."""
    here = tmp_path_factory.mktemp("ddp")
    asked = [*TINY, "study=s", "report=false", *DDP, "seed=1,2"]
    command = [sys.executable, "-m", "truerisk", "train", "-m", *asked]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run():
        return subprocess.run(
            command, cwd=here, env=environment, capture_output=True, text=True, timeout=300
        )

    return here, run(), run()


def test_each_cell_trains_once_in_its_processes(study):
    here, first, second = study
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("finished, risk/val") == 2
    assert "2 runs: 2 finished\n" in first.stdout
    assert second.stdout == "2 runs: 2 finished (2 of them before)\n", second.stderr
    folders = list((here / "outputs" / "s").glob("*-*/"))
    runs = [load_run(folder) for folder in folders]
    assert {run.config.seed.base for run in runs} == {1, 2} and len(runs) == 2
    assert {run.status for run in runs} == {"finished"}


def test_their_numbers_are_those_of_one_process(study, run):
    here = study[0]
    alone = run(*TINY, "trainer.max_epochs=2", "seed=2")
    (folder,) = (here / "outputs" / "s").glob("seed=2-*/")
    mine, theirs = alone.summary, load_run(folder).summary
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert theirs[name].value == pytest.approx(mine[name].value, abs=1e-5), name
