"""Entropy of attention and the size of logits, on attention whose weights are known."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torch import nn

from truerisk.assemble import build_diagnostics
from truerisk.core.errors import ConfigError
from truerisk.diagnostics import Attention
from truerisk.model import GPT, Transformer, VisionTransformer

MODELS = {
    "gpt": (lambda: GPT((6,), 9, width=8, depth=2, heads=2), torch.randint(9, (10, 6))),
    "grouped": (
        lambda: GPT((6,), 9, width=8, depth=1, heads=4, kv_heads=2, within_documents=True),
        torch.randint(9, (10, 6)),
    ),
    "transformer": (lambda: Transformer((6,), 3, width=8, heads=2), torch.randn(10, 6)),
    "vit": (
        lambda: VisionTransformer((1, 4, 4), 3, patch=2, width=8, depth=2, heads=2),
        torch.randn(10, 1, 4, 4),
    ),
}


def look(seen, name, change=lambda attention: None):
    """What is seen of a model after a change of its layers of attention, and the model."""
    torch.manual_seed(0)
    build, x = MODELS[name]
    model = build()
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "attention_logits"):
                change(module)
    return Attention().look(seen(model, x, torch.zeros(len(x), 1))), model


def select(values, what):
    found = [v for name, v in values.items() if name.startswith(f"{what}/")]
    assert found
    return found


@pytest.mark.parametrize("name", MODELS)
def test_equal_weights_have_the_whole_entropy(name, seen):
    values, model = look(seen, name, lambda attention: attention.key.weight.zero_())
    assert select(values, "logit") == [0.0] * len(model.layers)
    assert select(values, "entropy") == pytest.approx([1.0] * len(model.layers), abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_large_logits_leave_no_entropy(name, seen):
    def sharpen(attention):
        attention.query.weight.mul_(1e6)

    values, model = look(seen, name, sharpen)
    assert max(select(values, "entropy")) < 0.02 and min(select(values, "logit")) > 100
    outputs = model(MODELS[name][1]).detach()
    assert values["output"] == pytest.approx(float(outputs.abs().max()), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_that_attention_uses(name, seen):
    """The softmax of them, times values written out, is what the layer puts out."""
    torch.manual_seed(1)
    build, x = MODELS[name]
    model, calls = build(), []
    for module in model.modules():
        if hasattr(module, "attention_logits"):
            module.register_forward_hook(lambda *call: calls.append(call))
    model(x)
    assert len(calls) == len(model.layers)
    for layer, args, output in calls:
        logits = layer.attention_logits(*args)
        heads = logits.shape[1]
        v = layer.value(args[0]).unflatten(-1, (-1, output.shape[-1] // heads)).transpose(1, 2)
        mixed = logits.softmax(-1) @ v.repeat_interleave(heads // v.shape[1], 1)
        torch.testing.assert_close(layer.output(mixed.transpose(1, 2).flatten(2)), output)


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_normalized_queries_and_keys_bound_the_logits(gain, seen):
    """|q·k|/√d ≤ √d · gain², whatever the weights; without the norm they go far beyond."""
    x, found = torch.randint(9, (10, 6)), {}
    for norm in (True, False):
        torch.manual_seed(0)
        model = GPT((6,), 9, width=8, depth=2, heads=2, qk_norm=norm)
        with torch.no_grad():
            for layer in model.layers:
                layer.attention.query.weight.normal_(std=100.0)
                layer.attention.key.weight.normal_(std=100.0)
                if norm:
                    layer.attention.query_norm.weight.fill_(gain)
                    layer.attention.key_norm.weight.fill_(gain)
        values = Attention().look(seen(model, x, torch.zeros(10, 1)))
        found[norm] = max(select(values, "logit"))
    bound = math.sqrt(4) * gain**2
    assert 0.5 * bound < found[True] <= bound * (1 + 1e-6) and found[False] > 100 * bound


def test_documents_count_what_they_may_see(seen):
    """A place at a document's begin has nothing to choose, and is left out of the mean."""
    x = torch.tensor([[3, 0, 5, 0, 0, 2]]).repeat(4, 1)
    model = GPT((6,), 9, width=8, depth=1, heads=2, within_documents=True)
    with torch.no_grad():
        model.layers[0].attention.query.weight.zero_()
    assert Attention().look(seen(model, x, torch.zeros(4, 1)))[
        "entropy/layers.0.attention"
    ] == pytest.approx(1, abs=1e-6)


def test_a_run_logs_and_draws_it(run, tmp_path):
    words = ["data=digits", "data.num_train=40", "data.val=20", "data.test=20", "model=vit"]
    words += ["model.width=8", "model.heads=2", "model.depth=2", "model.patch=4"]
    result = run(*words, "trainer.max_epochs=2", "diagnostics=[attention]")
    rows = result.history[result.history.name.str.startswith("attention/")]
    layers = [f"layers.{i}.attention.attention" for i in range(2)]
    assert set(rows.name) == {
        *(f"attention/{what}/{layer}" for what in ("entropy", "logit") for layer in layers),
        "attention/output",
    }
    assert len(rows) == 3 * 5
    drawn = build_diagnostics(result.config)["attention"].draw(result.history, tmp_path / "a.png")
    assert Image.open(drawn).convert("L").getextrema()[0] < 60  # there is something dark on it


def test_a_model_without_attention_is_refused(run):
    with pytest.raises(ConfigError, match=r"diagnostics.attention: .*no layer with attention"):
        run("data=iris", "diagnostics=[attention]")


def test_a_layer_of_ones_own_is_looked_at(seen):
    class Pooling(nn.Linear):
        def attention_logits(self, x):
            return self.forward(x)[:, None, None]

    layer = Pooling(3, 4, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    values = Attention().look(seen(nn.Sequential(layer), torch.randn(5, 3), torch.zeros(5, 4)))
    assert values == pytest.approx({"entropy/0": 1.0, "logit/0": 0.0, "output": 0.0})
