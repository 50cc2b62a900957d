"""Many batches: read again and again in the memory of one, each with its own noise held."""

from __future__ import annotations

import weakref

import pytest
import torch

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.objective import GaussNewtonOperator, HessianOperator, LocalObjective, gradient

SAMPLES, BATCHES = 4, 8


class Stream:
    """Batches made as they are read; counts how many are alive at once, graphs included."""

    def __init__(self, shape):
        self.shape, self.alive, self.most, self.passes = shape, weakref.WeakSet(), 0, 0

    def __call__(self):
        self.passes += 1
        draw = torch.Generator().manual_seed(0)
        for _ in range(BATCHES):
            x = torch.randn(SAMPLES, *self.shape, generator=draw, dtype=torch.float64)
            self.alive.add(x)
            self.most = max(self.most, len(self.alive))
            yield Batch(x, torch.arange(SAMPLES) % 3)


@pytest.mark.parametrize("name", ["mlp-batch", "gru", "transformer-dropout"])
def test_no_more_than_two_batches_are_in_memory(case, name):
    """The one at work and the next; a graph that was kept would hold its inputs."""
    at = case(name, "train")
    stream = Stream(at.batch.x.shape[1:])
    point = LocalObjective(at.objective, None, stream)
    v = torch.randn(point.space.size, 2, dtype=torch.float64)
    for look in (point.value, lambda: gradient(point)):
        look()
    for operator in (HessianOperator(point), GaussNewtonOperator(point)):
        operator @ v
    assert stream.passes == 4
    assert stream.most <= 2


def test_a_stream_is_the_same_function_as_a_list(case):
    at = case("mlp-batch", "train")
    stream = Stream(at.batch.x.shape[1:])
    a, b = (LocalObjective(at.objective, None, batches) for batches in (stream, list(stream())))
    torch.testing.assert_close(a.value(), b.value(), rtol=0, atol=0)
    torch.testing.assert_close(
        HessianOperator(a).dense(), HessianOperator(b).dense(), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("name", ["mlp-dropout", "cnn1d-dropout", "transformer-dropout"])
def test_each_batch_keeps_its_dropout_mask(case, split, name):
    at = case(name, "train")
    x = at.batch.x[:1].expand(2, *at.batch.x.shape[1:])
    twice = split(Batch(x, at.batch.y[:1].expand(2)), 1, 1)
    point = at.point(twice)
    one, two = (p for _, p in point.map_batches(lambda batch: point.outputs(point.w, batch)))
    again = [p for _, p in point.map_batches(lambda batch: point.outputs(point.w, batch))]
    assert torch.equal(one, again[0]) and torch.equal(two, again[1])
    assert not torch.equal(one, two)  # the same sample under two masks
    other = LocalObjective(at.objective, None, twice, seed=7)
    assert not torch.equal(other.value(), point.value())


def test_what_can_be_read_only_once_is_refused(case):
    at = case("linear")
    with pytest.raises(ConfigError, match="only once"):
        LocalObjective(at.objective, None, iter([at.batch]))
    with pytest.raises(ConfigError, match="no samples"):
        LocalObjective(at.objective, None, []).value()
