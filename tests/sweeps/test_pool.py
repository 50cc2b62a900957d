"""A queue of warm workers."""

from __future__ import annotations

import os
import signal
import time

import pytest

from truerisk import fit
from truerisk.engine.step import Step
from truerisk.sweeps.launcher import pool
from truerisk.sweeps.launcher.pool import MachineSlot, divide_machine
from truerisk.sweeps.sweep_cell import SweepCell

POOL = ["hydra/launcher=pool", "hydra.launcher.slots=2"]


def test_a_pool_does_what_a_row_does(sweep, cells, tiny, here, capfd):
    assert sweep("seed=1,2,3", *POOL) == 0
    out, err = capfd.readouterr()
    assert "3 runs: 3 finished\n" in out and "epoch" not in err
    found = cells()
    pids = {run.run.status()["pid"] for run in found.values()}
    assert 1 <= len(pids) <= 2 and os.getpid() not in pids
    alone = tiny(here / "alone", ["seed=2"])
    assert alone.run.metrics.read_bytes() == found["seed=2"].run.metrics.read_bytes()
    assert sweep("seed=1,2,3", *POOL) == 0
    assert capfd.readouterr().out == "3 runs: 3 finished (3 of them before)\n"


def test_another_process_takes_the_place_of_one_that_has_trained_its_share(
    sweep, cells, monkeypatch
):
    monkeypatch.setattr(pool, "LIFE", 1)
    assert sweep("seed=1,2,3", *POOL) == 0
    assert len({run.run.status()["pid"] for run in cells().values()}) == 3


def test_a_crash_costs_one_cell(sweep, cells, monkeypatch, capfd):
    train = fit.train_cell

    def crashing(cfg, folder, facts):
        if cfg.seed.base == 2:
            step = Step.__call__

            def crashed(instance, batches):
                step(instance, batches)
                os.kill(os.getpid(), signal.SIGSEGV)

            monkeypatch.setattr(Step, "__call__", crashed)
        return train(cfg, folder, facts)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "train_cell", crashing)
        assert sweep("seed=range(1,5)", *POOL) == 1
    out = capfd.readouterr().out
    assert "seed=2: failed (its process ended with SIGSEGV)" in out
    assert "4 runs: " in out and "3 finished" in out and "1 failed" in out
    assert cells()["seed=2"].status == "failed" and "SIGSEGV" in cells()["seed=2"].reason
    assert sweep("seed=range(1,5)", *POOL) == 0
    assert {run.status for run in cells().values()} == {"finished"}


def test_a_mistake_or_a_bug_in_a_worker_is_told(sweep, cells, monkeypatch, capfd):
    def failing(cfg, folder, facts):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(fit, "train_cell", failing)
        assert sweep("seed=1,2", *POOL) == 1
    out, err = capfd.readouterr()
    assert err.count("RuntimeError: out of luck") == 2 and "2 runs: 2 failed" in out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_pool_that_is_stopped_saves_every_cell(sweep, cells, fork, tiny, here, monkeypatch, name):
    step = Step.__call__

    def slow(instance, batches):
        step(instance, batches)
        (here / f"{os.getpid()}.began").touch()
        time.sleep(0.2)

    def work():
        monkeypatch.setattr(Step, "__call__", slow)
        return sweep("seed=1,2,3", *POOL)

    child = fork(work)
    until = time.monotonic() + 60
    while len(list(here.glob("*.began"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    child.signal(signal.Signals[name])
    ended = child.wait()
    assert ended.code == {"SIGTERM": 143, "SIGINT": 130}[name], ended.text
    assert [run.status for run in cells().values()] == ["interrupted"] * 2
    assert sweep("seed=1,2,3", *POOL) == 0
    alone = tiny(here / "alone", ["seed=2"])
    assert alone.run.metrics.read_bytes() == cells()["seed=2"].run.metrics.read_bytes()


def cell(accelerator="cpu"):
    return SweepCell((), (), {"trainer": {"accelerator": accelerator}}, None)


def test_slots_share_out_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert len(divide_machine("auto", [cell()] * 20)) == 8
    assert divide_machine(3, [cell()] * 20) == [
        MachineSlot((0, 3, 6)),
        MachineSlot((1, 4, 7)),
        MachineSlot((2, 5)),
    ]
    assert len(divide_machine("auto", [cell("auto")] * 2)) == 2
    assert len(divide_machine(12, [cell()] * 20)) == 12


def test_slots_share_out_the_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [slot.gpu for slot in divide_machine("auto", [cell("gpu")] * 9)] == ["2", "5"]
    assert [slot.gpu for slot in divide_machine(3, [cell("auto")] * 9)] == ["2", "5", "2"]
    assert {slot.gpu for slot in divide_machine("auto", [cell()] * 9)} == {None}


def test_a_worker_keeps_to_its_slot(fork, tmp_path):
    def work():
        from truerisk.core import threads

        core = min(os.sched_getaffinity(0))
        MachineSlot((core,), "7").occupy()
        assert os.sched_getaffinity(0) == {core} and threads.count_cores() == 1
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"

    ended = fork(work).wait()
    assert ended.code == 0, ended.text
