"""LSUV's unit variances."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.initializer import LSUV
from truerisk.model import CNN, GRU, MLP, CNN1d, Linear, ResNet, Transformer

torch.set_num_threads(1)
MODELS = {
    "linear": (Linear, (1, 40), {}),
    "mlp": (MLP, (1, 40), {"depth": 5, "activation": "tanh"}),
    "mlp batch": (MLP, (1, 40), {"normalization": "batch"}),
    "cnn1d": (CNN1d, (1, 40), {}),
    "cnn": (CNN, (3, 8, 8), {}),
    "resnet": (ResNet, (1, 40), {}),
    "transformer": (Transformer, (1, 40), {}),
    "gru": (GRU, (1, 40), {}),
}


def built(name):
    torch.manual_seed(0)
    cls, shape, numbers = MODELS[name]
    return cls(shape, 10, **numbers), 3 + 5 * torch.randn(200, *shape)


def variances(model, x):
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            module.register_forward_hook(
                lambda m, a, out, name=name: found.update(
                    {name: float(out.detach().var(correction=0))}
                )
            )
    model(x)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_unit_variance(name):
    model, x = built(name)
    LSUV(tolerance=0.01)(model, x)
    found = variances(model, x)
    layers = sum(isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d) for m in model.modules())
    assert len(found) == layers
    assert all(abs(v - 1) <= 0.0101 for v in found.values()), found


def test_the_variances_were_not_one_before():
    model, x = built("mlp")
    assert max(abs(v - 1) for v in variances(model, x).values()) > 0.5


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_orthogonal_up_to_scale(name):
    model, x = built(name)
    LSUV()(model, x)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            w = module.weight.detach().flatten(1).double()
            product = w @ w.T if len(w) <= w.shape[1] else w.T @ w
            scale = product.diagonal().mean()
            torch.testing.assert_close(
                product / scale, torch.eye(len(product)).double(), atol=1e-5, rtol=0
            )


def test_recurrent_weights_stay_orthogonal():
    model, x = built("gru")
    LSUV()(model, x)
    for gate in model.recurrent.weight_hh_l0.detach().split(6):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)


def test_gain_is_the_standard_deviation():
    model, x = built("mlp")
    LSUV(gain=2.0)(model, x)
    assert all(abs(v / 4 - 1) <= 0.0101 for v in variances(model, x).values())


def test_layers_are_scaled_in_the_order_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(8, 4), nn.Linear(5, 8)

        def forward(self, x):
            return self.second(self.first(x).relu())

    torch.manual_seed(0)
    model, x = Backwards(), 10 * torch.randn(300, 5)
    LSUV()(model, x)
    assert all(abs(v - 1) <= 0.0101 for v in variances(model, x).values())


@torch.no_grad()
def test_a_bias_makes_it_iterate():
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 8), 10 * torch.randn(300, 5)
    nn.init.normal_(layer.bias, std=0.5)
    bias = layer.bias.clone()
    LSUV(tolerance=0.02, max_iterations=1, bias=None)(layer, x)
    after_one = abs(float(layer(x).var(correction=0)) - 1)
    LSUV(tolerance=0.02, max_iterations=50, bias=None)(layer, x)
    assert abs(float(layer(x).var(correction=0)) - 1) <= 0.0201 < after_one
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("training", [True, False])
def test_one_pass_and_nothing_left_behind(training):
    model, x = built("mlp batch")
    model.train(training)
    before = {k: b.clone() for k, b in model.named_buffers()}
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    LSUV()(model, x)
    handle.remove()
    assert len(calls) == 1 and model.training is training
    assert all(torch.equal(b, before[k]) for k, b in model.named_buffers())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_a_shared_layer_is_scaled_once():
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    model, x = nn.Sequential(layer, nn.Tanh(), layer), 4 * torch.randn(100, 6)
    LSUV()(model, x)
    assert abs(float(layer(x).var(correction=0)) - 1) <= 0.0101


def test_seeds_decide():
    first, again, other = (weights(seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def weights(seed):
    model, x = built("mlp")
    torch.manual_seed(seed)
    LSUV()(model, x)
    return model.output.weight.detach()


def test_no_batch_is_refused():
    with pytest.raises(ConfigError, match="lsuv"):
        LSUV()(nn.Linear(2, 2))
    assert LSUV.needs_data


@pytest.mark.parametrize("numbers", [{"gain": 0.0}, {"tolerance": 0}, {"max_iterations": "x"}])
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ConfigError, match=f"initializer.{next(iter(numbers))}"):
        LSUV(**numbers)


def test_data_that_does_not_vary_is_refused():
    with pytest.raises(ConfigError, match=r"output"):
        LSUV()(Linear((3,), 2), torch.zeros(5, 3))
