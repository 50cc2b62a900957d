"""Recomputed activations: the same numbers to the last bit, in less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.core.recompute import find_blocks, recompute_blocks
from truerisk.model import GPT, ResNet, VisionTransformer
from truerisk.regularizer import Dropout

MODELS = {
    "gpt": (lambda: GPT((16,), 30, width=16, depth=4, heads=2), torch.randint(30, (8, 16))),
    "vit": (
        lambda: VisionTransformer((1, 8, 8), 3, patch=2, width=16, depth=4, heads=2),
        torch.randn(8, 1, 8, 8),
    ),
    "resnet": (
        lambda: ResNet((1, 8, 8), 3, width=4, stages=2, depth=2, normalization="batch"),
        torch.randn(8, 1, 8, 8),
    ),
}


def take_steps(model, x, rates=(0.1, 0.1)):
    """Losses, and bytes that autograd kept of the first forward pass, over steps of SGD."""
    kept, losses = {}, []

    def count(tensor):
        # weights are there anyway
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    for rate in rates:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(x).square().mean()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p in model.parameters():
                p -= rate * p.grad
                p.grad = None
    return losses, sum(kept.values()), torch.rand(1)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", MODELS)
def test_steps_statistics_and_draws_are_those_of_the_plain_model(name, dropout):
    torch.manual_seed(0)
    build, x = MODELS[name]
    plain = build()
    if dropout:
        plain = Dropout(p=dropout).edit_model(plain)
    lean = copy.deepcopy(plain)
    recompute_blocks(lean)
    mine, whole, draw = take_steps(plain.train(), x)
    theirs, kept, again = take_steps(lean.train(), x)
    assert mine == theirs and torch.equal(draw, again)
    for (key, a), b in zip(plain.state_dict().items(), lean.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert kept < 0.6 * whole, (kept, whole)


def test_a_copy_recomputes_its_own_blocks():
    lean = MODELS["gpt"][0]().train()
    recompute_blocks(lean)
    other = copy.deepcopy(lean)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert not torch.equal(lean(MODELS["gpt"][1]), other(MODELS["gpt"][1]))


def test_weights_given_for_a_call_are_those_of_the_gradient():
    lean, x = MODELS["gpt"][0]().train(), MODELS["gpt"][1]
    plain = copy.deepcopy(lean)
    recompute_blocks(lean)
    found = []
    for model in (plain, lean):
        given = {n: (2 * p.detach()).requires_grad_() for n, p in model.named_parameters()}
        outputs = torch.func.functional_call(model, given, (x,))
        found.append(torch.autograd.grad(outputs.square().mean(), list(given.values())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_has_no_blocks_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    assert find_blocks(model) == []
    with pytest.raises(ConfigError, match="set recompute=false"):
        recompute_blocks(model)


def test_a_run_of_it_is_the_run_without(run, last_weights):
    words = ["data=digits", "data.num_train=60", "data.val=20", "data.test=20", "model=resnet20"]
    words += ["model.width=4", "model.stages=2", "model.depth=1", "regularizer=[dropout]"]
    words += ["trainer.max_epochs=2", "data.batch_size=20"]
    plain, lean = run(*words), run(*words, "recompute=true")
    assert lean.history.equals(plain.history)
    mine, theirs = last_weights(plain), last_weights(lean)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["compile=true"], "torch.compile chooses by itself"),
        (["regularizer=[input_gradient]"], "recomputed only once"),
        (["optimizer=newton_cg"], "recomputed only once"),
    ],
)
def test_what_it_does_not_go_with(run, words, why):
    with pytest.raises(ConfigError, match=why):
        run("data=iris", "recompute=true", *words)
