from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from truerisk.engine.stacked.vmap.traced_function import PATIENCE, TracedFunction


def step(x, weight, seen):
    """The gradient of a loss at stacked weights, and a buffer moved in place."""
    seen.mul_(0.9).add_(x.mean(), alpha=0.1)
    losses = torch.vmap(lambda x, w: F.layer_norm(x @ w, (3,)).square().sum())(x, weight)
    return losses.detach(), *torch.autograd.grad(losses.sum(), [weight])


def states(calls):
    draw = torch.Generator().manual_seed(0)
    seen, recorded = torch.zeros(()), TracedFunction(step)
    plain_seen = seen.clone()
    for _ in range(calls):
        x, weight = (torch.randn(2, a, 3, generator=draw) for a in (5, 3))
        ours = recorded([x, weight.requires_grad_(), seen])
        yield (*ours, seen), (*step(x, weight, plain_seen), plain_seen)


def test_what_is_played_back_is_what_the_function_does_to_the_bit():
    for ours, theirs in states(PATIENCE + 3):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_what_cannot_be_compiled_is_played_back_all_the_same(monkeypatch):
    def unreadable(_tape):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(torch.jit, "script", unreadable)
    for ours, theirs in states(PATIENCE + 3):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 7, 3)])
def test_another_shape_is_another_recording(shape):
    recorded = TracedFunction(lambda x: (x * x.shape[1],))
    for _ in range(PATIENCE + 1):
        recorded([torch.ones(2, 4, 3)])
    assert recorded([torch.ones(shape)])[0].unique().item() == shape[1]


def test_what_no_recording_holds_is_called_each_time():
    called = TracedFunction(lambda x: torch.autograd.grad(x.square().sum() * x.max().item(), [x]))
    for number in range(PATIENCE + 3):
        x = torch.tensor([2.0, number], requires_grad=True)
        assert called([x])[0][0] == 4 * max(2, number)
