"""A launcher of a user's own says how it runs cells, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from truerisk.cli import main
from truerisk.config.compose import ConfigLoader, expand_short_forms, hydra_session
from truerisk.config.parts import PRIMARY
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher import CellWork, HydraJobs, Launcher, SerialLauncher
from truerisk.sweeps.sweep import Sweep
from truerisk.sweeps.sweep_cell import SweepCell

LAUNCHER = '''\
"""Cells in the processes of the standard library's executor, which are started afresh."""

from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from truerisk.sweeps.launcher import Launcher, tell_lost


class Executor(Launcher):
    def __init__(self, workers=2, together=1):
        self.workers, self.together = workers, together

    def run_cells(self, works):
        with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as executor:
            futures = {executor.submit(work): work.cell for work in works}
            for future in as_completed(futures):
                cell, error = futures[future], future.exception()
                yield cell, tell_lost(cell, error) if error else future.result()

    def group_cells(self, cells):
        return [cells[i : i + self.together] for i in range(0, len(cells), self.together)]
'''
YAML = """\
# Processes of the standard library
_target_: own_launcher.Executor
workers: 2
together: 1
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of a user's, and the options that choose it."""
    package, conf = tmp_path / "package", tmp_path / "conf"
    option = conf / "hydra" / "launcher" / "executor.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(YAML)
    package.mkdir()
    (package / "own_launcher.py").write_text(LAUNCHER)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PYTHONPATH", str(package))
    yield ["--config-dir", str(conf), "hydra/launcher=executor"]
    sys.modules.pop("own_launcher", None)


def test_it_claims_resumes_counts_and_tells(own, sweep, cells, tiny, here, capfd):
    assert len(LAUNCHER.splitlines()) < 60
    assert sweep(*own, "seed=1,2,3") == 0
    out = capfd.readouterr().out
    assert out.count(": finished, risk/val ") == 3 and out.endswith("3 runs: 3 finished\n")
    pids = {run.run.status()["pid"] for run in cells().values()}
    assert os.getpid() not in pids and len(pids) == 2
    alone = tiny(here / "alone", ["seed=2"])
    assert alone.run.metrics.read_bytes() == cells()["seed=2"].run.metrics.read_bytes()
    assert sweep(*own, "seed=range(1,5)", "hydra.launcher.workers=1") == 0
    assert "4 runs: 4 finished (3 of them before)\n" in capfd.readouterr().out


def test_a_plan_shows_its_groups(own, tiny, here, capsys):
    asked = [*tiny.overrides, *own, "hydra.launcher.together=2", "seed=1,2,3,4,5"]
    assert main(["plan", *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3:] for line in lines[:4]] == [["group", "1"]] * 2 + [["group", "2"]] * 2
    assert "group" not in lines[4]


def test_one_that_cannot_be_imported(sweep, own, capsys):
    assert sweep(*own, "seed=1", "hydra.launcher._target_=own_launcher.Executer") == 2
    error = capsys.readouterr().err
    assert "hydra.launcher._target_=own_launcher.Executer" in error
    assert "did you mean 'Executor'?" in error


@pytest.fixture
def launched(tmp_path):
    """Launch three cells whose works are never called."""

    def launch(launcher):
        cells = [SweepCell((), (), {}, tmp_path / f"seed={i}-0123456789") for i in range(3)]
        return launcher.launch(cells, HydraJobs(None, None, None))

    return launch


def test_outcomes_are_put_in_order_and_lost_ones_are_told(launched, capsys):
    class Backwards(Launcher):
        def run_cells(self, works):
            yield works[2].cell, Outcome(0.2, "finished")
            yield works[0].cell, Outcome(0.1, "finished")

    outcomes = launched(Backwards())
    assert [outcome.status for outcome in outcomes] == ["finished", "failed", "finished"]
    assert outcomes[0].value == 0.1 and outcomes[1].reason == "it gave no outcome"
    assert capsys.readouterr().out.startswith("seed=1: failed (it gave no outcome)  /")


def test_a_signal_is_passed_on_once_and_ends_the_sweep(launched):
    passed = []

    class Signalled(Launcher):
        passes_signals = True

        def run_cells(self, works):
            for work in works:
                if self.stopped:
                    return
                os.kill(os.getpid(), signal.SIGTERM)
                yield work.cell, Outcome(0.1, "interrupted", "SIGTERM")

        def stop_cells(self, name):
            passed.append(name)

    with pytest.raises(SystemExit) as end:
        launched(Signalled())
    assert end.value.code == 143 and passed == ["SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_must_be_overridden_is_named(launched):
    with pytest.raises(NotImplementedError, match="Launcher overrides run_cells"):
        launched(Launcher())


def test_the_serial_one_calls_the_works_in_turn(launched, monkeypatch):
    numbers = []

    def call(work):
        numbers.append(work.number)
        return Outcome(float(work.number), "finished")

    monkeypatch.setattr(CellWork, "__call__", call)
    assert [outcome.value for outcome in launched(SerialLauncher())] == [0.0, 1.0, 2.0]
    assert numbers == [0, 1, 2]


class Looks:
    """A task and a callback that note what Hydra says of the job at hand."""

    def __init__(self):
        self.seen, self.heard = [], []

    def task(self, cfg):
        told = HydraConfig.get()
        names = told.runtime.output_dir, told.job.num, told.job.id, told.runtime.choices.optimizer
        refers = OmegaConf.select(told, "job.name"), os.environ.get("LR")
        self.seen.append((*names, list(told.overrides.task), *refers, sorted(map(str, cfg))))
        return Outcome(1.0, "finished")

    def on_job_end(self, config, job_return, **kwargs):
        self.heard.append((config.optimizer.lr, job_return.return_value.value))

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def launch_looking(folder, *more):
    """Launch two cells whose task looks around; gives what it and a callback have seen."""
    looks = Looks()
    overrides = ["seed=0", "optimizer.lr=0.1,0.2", f"hydra.sweep.dir={folder}", *more]
    with hydra_session():
        loader = ConfigLoader(None)
        overrides = expand_short_forms(overrides)
        shared = loader.load_configuration(PRIMARY, overrides, RunMode.MULTIRUN)
        with mock.patch("truerisk.sweeps.sweep.make_callbacks", lambda cfg: looks):
            Sweep(loader, PRIMARY, overrides, shared).run(looks.task)
        assert HydraConfig.instance().cfg is None
    return looks


def test_hydra_knows_a_job_whether_or_not_it_is_asked_for_more(tmp_path, undrawn):
    refers = "hydra.job.name=lr_${optimizer.lr}"
    plain = launch_looking(tmp_path / "plain", refers)
    asked = launch_looking(tmp_path / "asked", refers, "+hydra.job.env_set.LR=${optimizer.lr}")
    heard = launch_looking(tmp_path / "heard", refers, "+hydra.callbacks.own={_target_: x}")
    assert [look[5:7] for look in plain.seen] == [("lr_0.1", None), ("lr_0.2", None)]
    assert [look[5:7] for look in asked.seen] == [("lr_0.1", "0.1"), ("lr_0.2", "0.2")]
    assert heard.heard == [(0.1, 1.0), (0.2, 1.0)] and not plain.heard
    for other in (asked, heard):
        for one, two in zip(plain.seen, other.seen, strict=True):
            assert Path(one[0]).name == Path(two[0]).name and Path(two[0]).is_dir()
            assert (*one[1:6], one[7]) == (*two[1:6], two[7])
