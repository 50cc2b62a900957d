"""Samples of several members, some of whom have the same data."""

from __future__ import annotations

import pytest
import torch

from truerisk.core.batch import Batch
from truerisk.data.encoder import Standardizer
from truerisk.data.split import TensorSplit
from truerisk.engine.stacked.stacked_data import PickedBatch, StackedSplit


@pytest.mark.parametrize("keys", ["a", "aaa", "abc", "abca", "abcabc", "aabb", "abbc"])
@pytest.mark.parametrize("rows", [slice(None), slice(2, None), slice(0, 1)])
def test_every_member_has_its_own(keys, rows):
    data = {key: TensorSplit(torch.rand(5, 2), torch.rand(5)) for key in sorted(set(keys))}
    feed = StackedSplit([data[key] for key in keys], list(keys))
    members = keys[rows]
    if not members:
        return
    together = feed.slice_batch(slice(1, 4), rows)
    shown = torch.tensor([1, 2, 3]).expand(len(members), -1)
    gathered = feed.gather_batch(shown, rows)
    picked = [feed.pick_batch(index, rows) for index in (shown, shown.clone())]
    for k, key in enumerate(members):
        for found in (together, gathered, *picked):
            assert torch.equal(found.x[k], data[key].x[1:4])
            assert torch.equal(found.y[k], data[key].y[1:4])


@pytest.mark.parametrize("keys", ["aaa", "aab"])
def test_what_is_read_out_of_a_source_is_the_same_and_no_copy_where_it_is_one(keys):
    source, rows = torch.rand(9, 4), torch.tensor([7, 1, 3, 8, 0])
    standardizer = Standardizer(source.mean(0), source.std(0))
    data = {
        key: TensorSplit(source, torch.rand(5), rows, standardizer, keep_source=True)
        for key in sorted(set(keys))
    }
    feed = StackedSplit([data[key] for key in keys], list(keys))
    assert (feed.x is source) == (len(data) == 1)
    together = feed.slice_batch(slice(1, 4), slice(None))
    index = torch.tensor([[4, 0], [1, 1], [2, 3]])
    pointed = feed.pick_batch(index)
    assert isinstance(pointed, PickedBatch)
    for k, key in enumerate(keys):
        x, y = standardizer(source[rows]), data[key].y
        assert torch.equal(together.x[k], x[1:4]) and torch.equal(together.y[k], y[1:4])
        for picked in (feed.gather_batch(index), pointed, pointed.gather()):
            assert torch.equal(picked.x[k], x[index[k]]) and torch.equal(picked.y[k], y[index[k]])


def test_samples_that_lie_across_memory_are_gathered_at_once():
    data = TensorSplit(torch.rand(2, 5).T, torch.rand(5))
    batch = StackedSplit([data, data], ["a", "a"]).pick_batch(torch.tensor([[3, 1], [0, 4]]))
    assert isinstance(batch, Batch)
    assert torch.equal(batch.x, data.x[torch.tensor([[3, 1], [0, 4]])])
