"""Schedules fit the run: they begin with its first optimizer step and end with its last."""

from __future__ import annotations

import math

import pytest
import torch

from truerisk.engine.lightning import count_steps

# 90 training samples
RECIPE = ["data=iris", "model=linear", "optimizer=sgd", "optimizer.lr=0.5", "regularizer=[]"]
LENGTHS = {
    "epochs": (["data.batch_size=20", "trainer.max_epochs=4"], 4 * 5),
    "accumulate": (["data.batch_size=20", "trainer.max_epochs=4", "step.accumulate=2"], 4 * 3),
    "uneven accumulate": (["data.batch_size=7", "trainer.max_epochs=3", "step.accumulate=4"], 12),
    "steps": (["data.batch_size=20", "trainer.max_epochs=-1", "trainer.max_steps=13"], 13),
    "steps first": (["data.batch_size=20", "trainer.max_epochs=9", "trainer.max_steps=13"], 13),
    "epochs first": (["data.batch_size=20", "trainer.max_epochs=2", "trainer.max_steps=13"], 10),
    "full": (["data.batch_size=full", "trainer.max_epochs=7"], 7),
}


@pytest.fixture
def rates(run, monkeypatch):
    """The learning rates that a run's optimizer steps use, and its result."""
    step = torch.optim.SGD.step

    def measure(*overrides):
        used = []

        def noted(optimizer, *args, **options):
            used.append(optimizer.param_groups[0]["lr"])
            return step(optimizer, *args, **options)

        monkeypatch.setattr(torch.optim.SGD, "step", noted)
        result = run(*RECIPE, *overrides)
        monkeypatch.undo()
        return used, result

    return measure


@pytest.mark.parametrize("length", LENGTHS)
def test_linear_reaches_its_end_with_the_last_step(rates, series, length):
    """Step t of T uses 1 − t/T, so the rate after the last one is 0."""
    overrides, steps = LENGTHS[length]
    used, result = rates("scheduler=linear", *overrides)
    assert used == pytest.approx([0.5 * (1 - t / steps) for t in range(steps)], abs=1e-12)
    logged = series(result, "lr/0")
    assert logged.iloc[-1] == pytest.approx(0, abs=1e-12) and logged[0] == 0.5


@pytest.mark.parametrize("warmup", [3, 0.25])
@pytest.mark.parametrize("length", ["accumulate", "steps first"])
def test_warmup_is_part_of_the_run(rates, series, length, warmup):
    """Three steps up, and the cosine over what is left."""
    overrides, steps = LENGTHS[length]
    used, result = rates("scheduler=cosine", f"scheduler.warmup={warmup}", *overrides)
    up = [(t + 1) / 3 for t in range(3)]
    down = [(1 + math.cos(math.pi * t / (steps - 3))) / 2 for t in range(steps - 3)]
    assert used == pytest.approx([0.5 * f for f in up + down], abs=1e-12)
    assert series(result, "lr/0").iloc[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("length", ["epochs", "accumulate"])
def test_logged_rates_are_those_of_the_next_step(rates, series, length):
    overrides, steps = LENGTHS[length]
    used, result = rates("scheduler=polynomial", *overrides)
    each = steps // 4
    logged = series(result, "lr/0")
    assert list(logged)[:-1] == pytest.approx(used[::each], rel=1e-12)


def test_one_cycle_spans_the_run(rates):
    overrides, steps = LENGTHS["steps"]
    used, _ = rates("scheduler=one_cycle", *overrides)
    assert used[0] == pytest.approx(0.5 / 25)
    assert max(used) == pytest.approx(0.5, rel=0.05)
    assert used[-1] == pytest.approx(0.5 / 25 / 1e4)
    assert len(used) == steps


def test_decay_of_warmup_stable_decay_is_a_share_of_the_run(rates):
    """Two steps of warmup leave 18, of which the last 2/9 go down to 0, which step 20 would use."""
    overrides, _ = LENGTHS["epochs"]
    given = ["scheduler=warmup_stable_decay", "scheduler.decay=0.2222", "scheduler.warmup=0.1"]
    used, _ = rates(*given, *overrides)
    assert used == pytest.approx([0.25] + [0.5] * 16 + [0.375, 0.25, 0.125])


def test_milestones_as_shares_are_steps_of_the_run(rates):
    overrides, _ = LENGTHS["accumulate"]
    given = ["scheduler=multistep", "scheduler.milestones=[0.5,0.75]", "scheduler.gamma=0.1"]
    used, _ = rates(*given, *overrides)
    assert used == pytest.approx([0.5] * 6 + [0.05] * 3 + [0.005] * 3)


def test_plateau_moves_with_measured_epochs(rates, series):
    """A risk that cannot fall enough: the rate drops after every patience + 1 measurements."""
    given = ["scheduler=plateau", "scheduler.patience=1", "scheduler.factor=0.1"]
    given += ["scheduler.threshold=0.9", "trainer.max_epochs=6", "data.batch_size=full"]
    used, _ = rates(*given)
    assert used == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_a_run_that_is_given_no_length_has_lightnings():
    assert count_steps(3, None, -1) == 3000
    assert count_steps(3, None, 7) == 7
    assert count_steps(3, 2, -1) == 6
