"""The decoder: causal, turned by its closed form, and as its switches say."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, vmap

from truerisk.core.errors import ConfigError
from truerisk.core.parameter_rules import find_norm_parameters
from truerisk.engine.stacked.vmap.batching_rules import BatchingRules
from truerisk.model.gpt import GPT, mask_documents, rotary_angles, turn_pairs
from truerisk.optimizer import Muon
from truerisk.optimizer.parameter_groups import parameter_groups

torch.set_num_threads(1)
SMALL = {"width": 16, "depth": 2, "heads": 4}
V, T = 11, 9
SWITCHES = [
    {},
    {"activation": "relu2"},
    {"activation": "swiglu"},
    {"normalization": "layer", "bias": True},
    {"positions": "learned"},
    {"positions": "none"},
    {"qk_norm": True},
    {"tied": False},
    {"kv_heads": 1},
    {"kv_heads": 2, "qk_norm": True, "activation": "swiglu"},
    {"within_documents": True},
]


def make(seed=0, **numbers):
    torch.manual_seed(seed)
    model = GPT((T,), V, **{**SMALL, **numbers}).double()
    with torch.no_grad():  # away from the small weights of the beginning
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model


def tokens(n=3, seed=1):
    return torch.randint(1, V, (n, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("numbers", SWITCHES, ids=str)
def test_the_future_does_not_change_the_past(numbers):
    model, x = make(**numbers), tokens()
    for place in range(1, T):
        other = x.clone()
        other[:, place:] = (other[:, place:] % (V - 1)) + 1
        before, after = model(x), model(other)
        assert torch.allclose(before[:, :place], after[:, :place], atol=1e-12)
        assert (before[:, place] - after[:, place]).abs().max() > 1e-6


@pytest.mark.parametrize("numbers", SWITCHES[1:], ids=str)
def test_each_switch_changes_the_function(numbers):
    x = tokens()
    x[:, 4] = 0
    assert (make()(x) - make(**numbers)(x)).abs().max() > 1e-6


def test_the_rotation_is_that_of_complex_numbers():
    size = 8
    x = torch.randn(2, 3, T, size, dtype=torch.float64)
    turned = turn_pairs(x, rotary_angles(T, size, x))
    pairs = torch.complex(*x.chunk(2, -1))
    place, power = torch.arange(T)[:, None], torch.arange(size // 2) * 2 / size
    closed = pairs * torch.exp(1j * place * 10_000.0**-power)
    assert torch.allclose(turned, torch.cat([closed.real, closed.imag], -1))
    # products of queries and keys know the distance of their places alone
    q, k = x[:1, :1, :1].expand(1, 1, T, size), x[1:, :1, :1].expand(1, 1, T, size)
    angles = rotary_angles(T, size, x)
    products = (turn_pairs(q, angles) @ turn_pairs(k, angles).mT)[0, 0]
    for shift in range(T - 1):
        along = products.diagonal(-shift)
        assert torch.allclose(along, along[:1].expand_as(along))


def test_attention_is_softmax_of_scaled_products():
    model = make(kv_heads=2, positions="none")
    attention = model.layers[0].attention
    h = torch.randn(2, T, 16, dtype=torch.float64)
    q = attention.query(h).unflatten(-1, (4, 4)).transpose(1, 2)
    k, v = (f(h).unflatten(-1, (2, 4)).transpose(1, 2) for f in (attention.key, attention.value))
    # head i of the queries reads head i // 2 of the keys
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    scores = (q @ k.mT / 2).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
    closed = attention.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(h, None, None), closed)


def test_a_document_is_read_as_if_it_stood_alone():
    model = make(within_documents=True)
    first, second = torch.tensor([[0, 3, 4, 5]]), torch.tensor([[0, 7, 8, 2, 1]])
    joined = model(torch.cat([first, second], 1))
    # turned positions know distances alone
    apart = torch.cat([model(first), model(second)], 1)
    assert torch.allclose(joined, apart, atol=1e-12)
    assert not torch.allclose(make()(torch.cat([first, second], 1)), apart)
    assert mask_documents(first).shape == (1, 1, 4, 4)


def test_initial_weights_follow_the_published_rule():
    torch.manual_seed(0)
    depth = 3
    model = GPT(
        (T,), 200, width=128, depth=depth, heads=4, tied=False, bias=True, positions="learned"
    )
    for name, p in model.named_parameters():
        expected = 0.02
        if name.endswith(("attention.output.weight", "feed_forward.contract.weight")):
            expected = 0.02 / math.sqrt(2 * depth)
        if p.ndim == 2:
            assert p.std().item() == pytest.approx(expected, rel=0.06), name
        elif name.endswith("bias"):
            assert not p.any()
        else:
            assert (p == 1).all()
    scores = model(torch.randint(200, (2, T)))
    loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.randint(200, (2 * T,)))
    assert loss.item() == pytest.approx(math.log(200), rel=0.02)


def test_tied_weights_are_one_parameter():
    tied, untied = GPT((T,), V, **SMALL), GPT((T,), V, **SMALL, tied=False)
    assert tied.output.weight is tied.embedding.weight
    sizes = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == V * 16


def test_swiglu_has_as_many_parameters():
    sizes = [
        sum(p.numel() for p in GPT((T,), V, width=96, activation=a).parameters())
        for a in ("gelu", "swiglu")
    ]
    assert sizes[0] == sizes[1]


def test_matrices_go_to_muon_and_the_rest_to_adamw():
    from omegaconf import OmegaConf

    from truerisk.config.compose import compose

    cfg = compose(["data=text", "model=gpt", "optimizer=muon", "param_groups=muon_hidden"])
    rules = OmegaConf.to_container(cfg.param_groups.rules)
    for tied in (True, False):
        model = GPT((T,), V, **SMALL, tied=tied, qk_norm=True, positions="learned")
        groups = Muon(parameter_groups(model, rules, Muon)).param_groups
        names = {id(p): n for n, p in model.named_parameters()}
        by_muon = {names[id(p)] for g in groups if "ns_steps" in g for p in g["params"]}
        hidden = {n for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("layers")}
        assert by_muon == hidden and len(hidden) == 12
        rest = {names[id(p)] for g in groups if "ns_steps" not in g for p in g["params"]}
        assert {"embedding.weight", "positions", "last.weight"} <= rest
        assert find_norm_parameters(model) <= rest


@pytest.mark.parametrize("numbers", SWITCHES, ids=str)
def test_stacked_models_are_single_ones(numbers):
    models, x = [make(seed, **numbers) for seed in (0, 1)], tokens()
    names = [name for name, _ in models[0].named_parameters()]
    stacked = {n: torch.stack([dict(m.named_parameters())[n] for m in models]) for n in names}
    with BatchingRules():
        outputs = vmap(lambda p: functional_call(models[0], p, (x,)))(stacked)
    for model, output in zip(models, outputs, strict=True):
        assert torch.allclose(model(x), output, atol=1e-12)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide model.width=16"),
        ({"kv_heads": 3}, "kv_heads=3 does not divide model.heads=4"),
        ({"width": 12}, "turns pairs of features, and a head has 3"),
        ({"activation": "relu"}, "model.activation=relu is not known"),
        ({"normalization": "batch"}, "model.normalization=batch"),
        ({"positions": "sine"}, "model.positions=sine"),
        ({"depth": 0}, "model.depth"),
    ],
)
def test_what_does_not_fit_is_refused(numbers, message):
    with pytest.raises(ConfigError, match=message):
        GPT((T,), V, **{**SMALL, **numbers})


def test_other_samples_are_refused():
    with pytest.raises(ConfigError, match="sequences of tokens"):
        GPT((1, 40), V)
    with pytest.raises(ConfigError, match="whole numbers"):
        GPT((T,), V, **SMALL)(torch.zeros(2, T))
    with pytest.raises(ConfigError, match="knows 9 places"):
        GPT((T,), V, **SMALL, positions="learned")(torch.zeros(2, T + 1, dtype=torch.long))
