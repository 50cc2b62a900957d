"""Cells that fall behind stop early: asynchronous successive halving."""

from __future__ import annotations

import pytest

from truerisk.cli import main
from truerisk.core.stop import Stop
from truerisk.engine.stopping import Rungs
from truerisk.result import load_run

CONFIG = {"data": {"name": "a"}, "loss": {}}


def stops(rungs, cell, risk):
    rungs.report(cell, 1, risk)
    return rungs.compare(1, risk)


def test_rungs(tmp_path):
    rungs = Rungs(tmp_path, CONFIG, 2, 3)
    assert [rungs.highest_rung(e) for e in (0, 1, 2, 5, 6, 17, 18, 60)] == [
        None, None, 2, 2, 6, 6, 18, 54,
    ]  # fmt: skip


def test_the_best_third_of_those_who_came_goes_on(tmp_path):
    """Algorithm 2 by hand: η = 3, risks in the order of their coming."""
    rungs = Rungs(tmp_path, CONFIG, 1, 3)
    came = [5.0, 6.0, 4.0, 4.5, 3.0, 9.0, 3.5]
    # kept: ⌈n/3⌉ of n = 1 … 7, that is 1 1 1 2 2 2 3; ranks at arrival 1 2 1 2 1 6 2
    goes = [not stops(rungs, f"x-{i}", risk) for i, risk in enumerate(came)]
    assert goes == [True, False, True, True, True, False, True]
    behind = stops(rungs, "x-9", 5.5)
    assert behind == {"epoch": 1, "risk": 5.5, "rank": 6, "among": 8, "kept": 3}
    assert "number 6 of 8, and the best 3 go on" in Stop("halving", 1, behind).describe()


def test_the_same_cell_again_counts_once(tmp_path):
    rungs = Rungs(tmp_path, CONFIG, 1, 2)
    assert all(not stops(rungs, "x-1", 2.0) for _ in range(3))
    assert stops(rungs, "x-2", 3.0)


def test_other_data_are_not_compared(tmp_path):
    assert not stops(Rungs(tmp_path, CONFIG, 1, 2), "x-1", 1.0)
    other = CONFIG | {"data": {"name": "b"}}
    assert not stops(Rungs(tmp_path, other, 1, 2), "x-2", 2.0)
    assert stops(Rungs(tmp_path, CONFIG, 1, 2), "x-3", 2.0)


@pytest.fixture
def sweep(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["optimizer=sgd", "trainer.max_epochs=9", "halving.first=1", "study=s"]
    asked += ["report=false"]
    return lambda *more: main(["train", "-m", *tiny.overrides, *asked, *more])


def runs(folder):
    cells = {p.name.rpartition("-")[0]: load_run(p) for p in (folder / "outputs/s").glob("*-*/")}
    return {name.rpartition("=")[2]: run for name, run in cells.items()}


def test_hopeless_cells_of_a_sweep_end_early(sweep, tmp_path, capsys):
    assert sweep("optimizer.lr=0.3,1e-5,0.001,0.5") == 0
    found = runs(tmp_path)
    assert {run.status for run in found.values()} == {"finished"}
    epochs = {name: run.history.epoch.max() for name, run in found.items()}
    assert epochs == {"0.3": 9, "1e-05": 1, "0.001": 1, "0.5": 9}
    assert found["1e-05"].reason.startswith("successive halving: at epoch 1 its validation risk")
    assert found["1e-05"].summary["risk/val"].value > found["0.3"].summary["risk/val"].value
    capsys.readouterr()
    assert sweep("optimizer.lr=0.3,1e-5") == 0
    assert "(2 of them before)" in capsys.readouterr().out


def test_cells_trained_together_are_compared_together(sweep, tmp_path, capsys):
    """The worst comes first in line, and still is behind the others."""
    asked = ["optimizer.lr=1e-5,0.001,0.3,0.5", "hydra/launcher=vectorized", "trainer=cpu"]
    assert sweep(*asked) == 0
    err = capsys.readouterr().err
    assert "by itself" not in err and "by themselves" not in err
    found = runs(tmp_path)
    epochs = {name: run.history.epoch.max() for name, run in found.items()}
    best = min(found, key=lambda name: found[name].summary["risk/val"].value)
    assert sorted(epochs.values()) == [1, 1, 3, 9]
    assert epochs[best] == 9 and epochs["1e-05"] == epochs["0.001"] == 1
    assert "of 4, and the best 2 go on" in found["1e-05"].reason


def test_a_cell_killed_at_a_rung_goes_on_to_the_same_end(sweep, tmp_path, killed_after):
    killed_after(10, lambda: sweep("optimizer.lr=0.3,1e-5"))
    assert sweep("optimizer.lr=0.3,1e-5") == 0
    found = runs(tmp_path)
    assert {name: run.history.epoch.max() for name, run in found.items()} == {"0.3": 9, "1e-05": 1}


def test_a_single_run_has_nobody_to_compare_with(tiny, tmp_path, capsys):
    assert (
        main(["train", *tiny.overrides, "halving.first=1", f"hydra.run.dir={tmp_path / 'r'}"]) == 2
    )
    assert "add --multirun" in capsys.readouterr().err
