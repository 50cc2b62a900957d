"""The input-gradient penalty against finite differences."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from truerisk.regularizer import InputGradient


def by_differences(forward, h=1e-6):
    x, total = forward.batch.x, 0.0
    flat = x.flatten(1)
    for k in range(flat.shape[1]):
        step = torch.zeros_like(flat)
        step[:, k] = h
        step = step.reshape(x.shape)
        with torch.no_grad():
            slope = (forward.losses_at(x + step) - forward.losses_at(x - step)) / (2 * h)
        total += slope.square().sum()
    return total / len(x)


def test_value(forward):
    value = InputGradient(0.5).penalty(forward)
    torch.testing.assert_close(value, 0.5 * by_differences(forward), rtol=1e-7, atol=0)


def test_closed_form_of_a_linear_model(look):
    model = nn.Linear(3, 1, bias=False)
    x, y = torch.randn(5, 3), torch.randn(5, 1)
    forward = look(model, x, y, loss=lambda out, y: (out - y).square()[:, 0])
    residual = (model(x) - y).detach()
    expected = (4 * residual.square() * model.weight.square().sum()).mean()
    torch.testing.assert_close(InputGradient(1.0).penalty(forward), expected)


def test_parameter_gradient(look, mlp, samples):
    def penalty(params):
        return InputGradient(1.0).penalty(look(mlp, *samples, params=params))

    params = {n: p.detach() for n, p in mlp.named_parameters()}
    gradient = torch.func.grad(penalty)(params)
    direction = {n: torch.randn_like(p) for n, p in params.items()}
    h = 1e-6
    ahead = penalty({n: p + h * direction[n] for n, p in params.items()})
    behind = penalty({n: p - h * direction[n] for n, p in params.items()})
    slope = sum((gradient[n] * direction[n]).sum() for n in params)
    torch.testing.assert_close(slope, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-9)
    value = InputGradient(1.0).penalty(look(mlp, *samples))
    plain = torch.autograd.grad(value, list(mlp.parameters()))
    for ours, (name, expected) in zip(plain, gradient.items(), strict=True):
        torch.testing.assert_close(ours, expected, msg=name)


def test_without_gradient_tracking(forward):
    expected = InputGradient(1.0).penalty(forward)
    with torch.no_grad():
        value = InputGradient(1.0).penalty(forward)
    assert not value.requires_grad and expected.requires_grad
    torch.testing.assert_close(value, expected.detach())


def test_frozen_parameters(look, mlp, samples):
    expected = InputGradient(1.0).penalty(look(mlp, *samples)).detach()
    mlp.requires_grad_(False)
    torch.testing.assert_close(InputGradient(1.0).penalty(look(mlp, *samples)), expected)


def test_maps_over_stacked_parameters(look, mlp, samples):
    params = {n: p.detach() for n, p in mlp.named_parameters()}
    stacked = {n: torch.stack([p, 2 * p]) for n, p in params.items()}

    def penalty(p):
        return InputGradient(1.0).penalty(look(mlp, *samples, params=p))

    gradients, values = torch.vmap(torch.func.grad_and_value(penalty))(stacked)
    torch.testing.assert_close(values[0], penalty(params))
    single = torch.func.grad(penalty)({n: p[1] for n, p in stacked.items()})
    torch.testing.assert_close(gradients["0.weight"][1], single["0.weight"])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x)[:, -1]


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(4, 3, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0][:, -1]


MODELS = {
    "attention": Attention,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "batch_norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(20, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)
    ),
    "convolution": lambda: nn.Sequential(
        nn.Conv1d(5, 3, 2), nn.GroupNorm(1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9, 3)
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_architectures(look, name, training):
    torch.manual_seed(0)
    model = MODELS[name]().double().train(training)
    forward = look(model, torch.randn(6, 5, 4).double(), torch.randint(0, 3, (6,)))
    value = InputGradient(1.0).penalty(forward)
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    with torch.no_grad():
        torch.testing.assert_close(InputGradient(1.0).penalty(forward), value.detach())
    if not (training and name == "batch_norm"):
        torch.testing.assert_close(value, by_differences(forward), rtol=1e-6, atol=1e-9)
    else:
        state = {n: p.clone() for n, p in model.state_dict().items()}
        x = forward.batch.x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(functional_call(model, state, (x,)), forward.batch.y)
        slope = len(x) * torch.autograd.grad(loss, x)[0]
        torch.testing.assert_close(value, slope.square().sum() / len(x))
