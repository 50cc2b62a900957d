"""What is measured after each epoch is read once; other inputs are let go when they are used."""

from __future__ import annotations

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

import truerisk
from truerisk.data import run_data, split
from truerisk.data.split import TensorSplit
from truerisk.engine import measure
from truerisk.engine.host import Host
from truerisk.engine.precision import DevicePrecision
from truerisk.objective import Objective

TINY = ["model.width=6", "trainer.max_epochs=3", "data.batch_size=100", "figures=false"]


@pytest.fixture
def reads(monkeypatch):
    """How many inputs each read gave, and whether those of the read before were still held."""
    seen, read, last = [], TensorSplit._read_block, []

    def watched(self, block):
        held = bool(last) and not last.pop().expired()
        parts = read(self, block)
        last.append(StorageWeakRef(parts[0].untyped_storage()))
        seen.append((sum(map(len, parts)), held))
        return parts

    monkeypatch.setattr(TensorSplit, "_read_block", watched)
    monkeypatch.setattr(run_data, "COPIED", 0)  # as of data that are too large for a copy
    monkeypatch.setattr(split, "READ_AT_ONCE", 0)
    monkeypatch.setattr(measure.RiskEstimator, "block_size", 100)
    return seen


@pytest.fixture
def train(tmp_path):
    """A run on 600 samples for training and 200 each for validation and test."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 16, generator=draw)
    y = (x[:, 0] > 0).long()

    def train(name):
        return truerisk.train(TINY, data=(x, y), folder=tmp_path / name)

    return train


def test_what_is_held_is_what_each_epoch_measures(assembled):
    """And not what else is measured of the same split."""
    recipe = assembled("data=iris", "model.width=6")
    host = Host(DevicePrecision(torch.device("cpu"), "64-true"))
    objective = Objective(recipe.model, recipe.surrogate)
    risks = measure.RiskEstimator(recipe, objective, host)
    for _ in range(2):
        subset = risks.epoch_risks(None, 0)["risk/train"].value
        whole = risks.measure_split("train", None).risk.moments
        assert whole.size == len(recipe.data.train) and whole.mean != subset


def test_inputs_are_let_go_before_the_next_are_read(reads, train, monkeypatch):
    """So that these come into their memory, which is in the cache."""
    monkeypatch.setattr(measure, "HELD_BYTES", 0)
    train("run")
    assert len(reads) > 40 and not any(held for _, held in reads)


def test_what_each_epoch_measures_is_read_once_where_it_is_small(reads, train, monkeypatch):
    rows = {}
    for most in (0, measure.HELD_BYTES):
        monkeypatch.setattr(measure, "HELD_BYTES", most)
        reads.clear()
        result = train(str(most))
        rows[most] = result.run.metrics.read_bytes(), len(reads)
    (read_anew, often), (held, once) = rows.values()
    assert held == read_anew
    # after three epochs: two blocks of the validation set, and of as many training samples
    assert often - once == 3 * (2 + 2)
