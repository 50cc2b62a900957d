"""Samples of several members, some of whom have the same data."""

from __future__ import annotations

import pytest
import torch

from truerisk.data.split import TensorSplit
from truerisk.engine.stacked.stacked_data import StackedSplit


@pytest.mark.parametrize("keys", ["a", "aaa", "abc", "abca", "abcabc", "aabb", "abbc"])
@pytest.mark.parametrize("rows", [slice(None), slice(2, None), slice(0, 1)])
def test_every_member_has_its_own(keys, rows):
    data = {key: TensorSplit(torch.rand(5, 2), torch.rand(5)) for key in sorted(set(keys))}
    feed = StackedSplit([data[key] for key in keys], list(keys))
    members = keys[rows]
    if not members:
        return
    together = feed.slice_batch(slice(1, 4), rows)
    picked = feed.gather_batch(torch.tensor([1, 2, 3]).expand(len(members), -1), rows)
    for k, key in enumerate(members):
        for found in (together, picked):
            assert torch.equal(found.x[k], data[key].x[1:4])
            assert torch.equal(found.y[k], data[key].y[1:4])
