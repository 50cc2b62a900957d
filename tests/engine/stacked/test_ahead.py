"""Rows that take several steps in turn come to the bits of rows that take each step together."""

from __future__ import annotations

import pytest
import torch

from truerisk.data import run_data
from truerisk.engine.stacked import backend
from truerisk.engine.stacked.member_code.compiled_function import PickedRows

SMALL = ["data=iris", "data.batch_size=15", "model.width=8", "model.depth=1", "figures=false"]
ADAM = [*SMALL, "trainer.max_epochs=5", "regularizer=[]"]
SGD = [*ADAM, "optimizer=sgd", "optimizer.lr=0.1"]
GROUPS = {
    "plain": [ADAM, [*ADAM, "seed=1"]],
    "two layers": [[*ADAM, "model.depth=2", f"seed={i}"] for i in range(3)],
    "numbers that move": [
        [*ADAM, "scheduler=one_cycle", f"optimizer.lr={lr}"] for lr in (0.01, 0.1)
    ],
    "numbers that become zero": [[*SGD, "scheduler=linear", f"seed={i}"] for i in range(2)],
    "a rate that becomes zero within a row": [
        [*SGD, "scheduler=step", "scheduler.step_size=7", "scheduler.gamma=0", f"seed={i}"]
        for i in range(2)
    ],
    "one that diverges": [SGD, [*SGD, "optimizer.lr=1e9"], [*SGD, "seed=2"]],
    "all but one": [SGD, *([*SGD, f"optimizer.lr={rate}"] for rate in ("1e9", "1e20"))],
    "groups": [[*ADAM, "optimizer=adamw", "param_groups=no_decay", f"seed={i}"] for i in range(2)],
    "its own data": [[*ADAM, f"seed.data={i}"] for i in range(2)],
    "double precision": [[*ADAM, "trainer.precision=64-true", f"seed={i}"] for i in range(2)],
    "a last batch that is smaller": [[*ADAM, "data.batch_size=14", f"seed={i}"] for i in range(2)],
}


@pytest.fixture
def rows(monkeypatch):
    """How many steps the rows took, each time that they took several."""
    taken, run_steps = [], backend.run_steps

    def noted(calls, watched):
        taken.append(run_steps(calls, watched))
        return taken[-1]

    monkeypatch.setattr(backend, "run_steps", noted)
    return taken


@pytest.mark.parametrize("name", GROUPS)
def test_the_same_bits(name, compiled, rows, stack, last_weights, monkeypatch):
    monkeypatch.setattr(backend, "AHEAD", 1)
    together = stack(*GROUPS[name])
    assert not rows
    monkeypatch.setattr(backend, "AHEAD", 4)
    in_turn = stack(*GROUPS[name])
    # in the first step of all, code is compiled
    most = max(map(max, rows))
    assert most == 4 and sum(map(max, rows)) >= 20, rows
    for one, other in zip(together, in_turn, strict=True):
        assert one.run.metrics.read_bytes() == other.run.metrics.read_bytes()
        assert (one.status, one.reason) == (other.status, other.reason)
        assert one.run.status().get("stop") == other.run.status().get("stop")
        if one.status == "finished":
            weights, others = last_weights(one), last_weights(other)
            assert all(torch.equal(weights[key], others[key]) for key in weights)


def test_samples_are_read_where_they_lie(compiled, rows, stack, last_weights, monkeypatch):
    """As of data that are too large for a copy of what a split takes of them."""
    shared = [*ADAM, "seed.data=0", "trainer.precision=64-true"]  # as the source has its numbers
    recipes = [[*shared, f"seed.base={seed}"] for seed in range(2)]
    copied = stack(*recipes)
    taken = rows.copy()
    rows.clear()
    picked, pick = [], PickedRows.pick
    monkeypatch.setattr(PickedRows, "pick", lambda own: picked.append(len(own)) or pick(own))
    monkeypatch.setattr(run_data, "COPIED", 0)
    lying = stack(*recipes)
    assert rows == taken
    assert set(picked) == {1}  # of the first member, once for each kind of batch; never of all
    for one, other in zip(copied, lying, strict=True):
        assert one.run.metrics.read_bytes() == other.run.metrics.read_bytes()
        weights, others = last_weights(one), last_weights(other)
        assert all(torch.equal(weights[key], others[key]) for key in weights)


def test_without_what_takes_them_in_turn_all_take_each_step(compiled, rows, stack, monkeypatch):
    """As where the disk is full when it is to be compiled."""
    monkeypatch.setattr(backend, "load_driver", lambda: None)
    assert [run.status for run in stack(*GROUPS["plain"])] == ["finished"] * 2
    assert not rows
