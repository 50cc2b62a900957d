"""Cells that train in several processes each."""

from __future__ import annotations

import subprocess
import sys

import pytest

from truerisk.cli import main
from truerisk.result import load_run

TINY = ["data=iris", "data.batch_size=30", "model.width=8"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=2"]
ASKED = ["train", "-m", *TINY, "study=s", "report=false", *DDP, "seed=1,2"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a sweep of two cells in two processes each, and what the command said."""
    here = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "truerisk", *ASKED]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=300)
    return here, done


def test_each_cell_trains_once_in_its_processes(study, monkeypatch, capsys):
    here, done = study
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished, risk/val") == 2
    assert "2 runs: 2 finished\n" in done.stdout
    monkeypatch.chdir(here)
    assert main(ASKED) == 0
    assert capsys.readouterr().out == "2 runs: 2 finished (2 of them before)\n"
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
