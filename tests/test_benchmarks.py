"""The benchmarks keep up with what they measure."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
MODULES = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py"))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("__")])
def test_every_module_can_be_imported(name):
    import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("optimizer", ["adam", "sam", "kfac", "newton_cg"])
def test_a_descent_takes_steps_and_lowers_the_risk(optimizer):
    from benchmarks.descent import Descent

    descent = Descent(["data=digits", "model.width=8", "regularizer=[]", f"optimizer={optimizer}"])
    before = descent.risk()
    for _ in range(20):
        descent.take()
    assert descent.steps == 20 and descent.seconds > 0
    assert descent.risk() < before


def test_intervals_over_seeds_are_measured():
    from benchmarks import seed_intervals

    risks = seed_intervals.train_risks(["data=iris", "trainer.max_epochs=1"], seeds=4)
    assert len(set(risks)) == 4
    student, shown, wider = seed_intervals.measure_coverage(
        stats.norm.ppf(np.linspace(0.005, 0.995, 100)), 10
    )
    assert abs(student - 0.95) < 0.02 and abs(shown - 0.95) < 0.02 and wider < 0.15


def test_intervals_over_folds_are_measured(monkeypatch):
    from benchmarks import fold_intervals

    monkeypatch.setattr(fold_intervals, "TRUTHS", 3)
    held = fold_intervals.measure_coverage(60, 5, studies=8)
    assert tuple(held) == fold_intervals.METRICS and min(held.values()) > 0.5


def test_a_run_and_the_bare_loop_take_the_same_steps():
    from benchmarks import ours
    from benchmarks.task import STEP

    turns = ours.timed(STEP, 2)
    assert turns.bare.steps == 2 * -(-STEP.num_train // STEP.batch_size)
    assert 0 < turns.peer < turns.seconds


def test_waiting_for_a_study_that_is_done_is_timed():
    from benchmarks.pool import cell

    assert cell("skip", 3) > 0
