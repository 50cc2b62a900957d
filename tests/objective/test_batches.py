"""Many batches: read again and again in the memory of one, each with its own noise held."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.loss import adapt_loss
from truerisk.model import GPT
from truerisk.objective import (
    GaussNewtonOperator,
    HessianOperator,
    LocalObjective,
    Objective,
    gradient,
)
from truerisk.objective.step_objective import StepObjective

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


def penalize(forward):
    return 0.1 * sum(p.square().sum() for p in forward.params.values())


class Decoding:
    """A decoder's loss on few sequences of tokens, whose last batch is a smaller one."""

    def __init__(self):
        torch.manual_seed(0)
        sizes = {"width": 4, "depth": 1, "heads": 2, "kv_heads": 1, "expansion": 1}
        self.model = GPT((5,), 6, **sizes, within_documents=True).double()
        for parameter in self.model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        tokens = torch.randint(6, (7, 6))
        self.batch = Batch(tokens[:, :-1], tokens[:, 1:])
        loss = torch.nn.CrossEntropyLoss(reduction="none")
        self.objective = Objective(self.model, adapt_loss(loss, "next_token", 6), {"l2": penalize})
        self.w = LocalObjective(self.objective, None, [self.batch]).w

    def outputs(self, w):
        space = LocalObjective(self.objective, None, [self.batch]).space
        with sdpa_kernel(SDPBackend.MATH):
            return functional_call(self.model, space.named(w), (self.batch.x,))

    def value(self, w):
        scores = self.outputs(w).flatten(0, 1)
        return torch.nn.functional.cross_entropy(scores, self.batch.y.flatten()) + 0.1 * w @ w


@pytest.mark.parametrize("sizes", [(7,), (3, 3, 1)])
def test_curvature_of_a_decoder_is_that_of_all_its_tokens(split, sizes):
    at = Decoding()
    batches = split(at.batch, *sizes)
    J = jacobian(at.outputs, at.w).flatten(0, 1)
    p = at.outputs(at.w).detach().flatten(0, 1).softmax(1)
    H = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    found = torch.einsum("nkp,nkl,nlq->pq", J, H, J) / len(p) + 0.2 * torch.eye(len(at.w)).double()
    exact = {"gauss_newton": found, "hessian": hessian(at.value, at.w)}
    v = torch.randn(len(at.w), dtype=torch.float64)
    point = LocalObjective(at.objective, None, batches)
    step = StepObjective(at.objective, [(batch, len(batch) / 7) for batch in batches])
    close = {"rtol": 1e-9, "atol": 1e-11}
    for operator, name in ((GaussNewtonOperator, "gauss_newton"), (HessianOperator, "hessian")):
        torch.testing.assert_close(operator(point).dense(), exact[name], **close)
        product = getattr(step, f"{name}_product")(v)
        torch.testing.assert_close(product, exact[name] @ v, **close)
