"""Outputs and slopes of activation functions against autograd, and units made dead by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.diagnostics import Activations
from truerisk.diagnostics.activations import ELEMENTWISE, elementwise_slope

X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.zeros(50, 2, dtype=torch.float64)


def model(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), activation, nn.Linear(8, 2)).double()


def look(seen, net, block=1000, **options):
    return Activations(samples=50, **options).look(seen(net, X, Y, block=block))


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_slopes_are_the_derivative(kind):
    layer, x, step = kind(), torch.linspace(-4, 4, 41, dtype=torch.float64) + 0.013, 1e-6
    output, slope = elementwise_slope(layer, x.clone())
    torch.testing.assert_close(output, layer(x), rtol=0, atol=0)
    difference = (layer(x + step) - layer(x - step)) / (2 * step)
    torch.testing.assert_close(slope, difference.abs(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("inplace", "block"), [(False, 1000), (True, 1000), (False, 7)])
def test_dead_units_of_a_relu(seen, inplace, block):
    net = model(nn.ReLU(inplace=inplace))
    with torch.no_grad():
        net[0].bias[:3] = -100.0
    found = look(seen, net, block)
    h = torch.relu(net[0](X))
    assert found["dead/1"] == pytest.approx(3 / 8)
    assert found["saturated/1"] == pytest.approx((h == 0).double().mean().item(), rel=1e-6)
    assert found["mean/1"] == pytest.approx(h.mean().item(), rel=1e-6)
    assert found["variance/1"] == pytest.approx(h.var(correction=0).item(), rel=1e-5)


def test_saturated_ends_of_tanh_and_sigmoid(seen):
    net = model(nn.Tanh())
    with torch.no_grad():
        net[0].weight.mul_(3)
    share = (torch.tanh(net[0](X)).abs() >= 0.95**0.5).double().mean().item()
    assert 0.1 < share < 0.9
    found = look(seen, net)
    assert found["saturated/1"] == pytest.approx(share, abs=1e-6) and found["dead/1"] == 0
    net[1] = nn.Sigmoid()
    slope = 4 * torch.sigmoid(net[0](X)) * (1 - torch.sigmoid(net[0](X)))
    expected = (slope <= 0.3).double().mean().item()
    assert look(seen, net, flat=0.3)["saturated/1"] == pytest.approx(expected, abs=1e-6)


def test_a_gelu_is_flat_far_to_the_left_alone(seen):
    net = model(nn.GELU())
    with torch.no_grad():
        net[0].bias[:2], net[0].bias[2:] = -50.0, 50.0
    found = look(seen, net)
    assert found["saturated/1"] == pytest.approx(0.25) and found["mean/1"] > 0


def test_states_of_a_recurrent_layer(seen):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.output = nn.RNN(1, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.output(self.recurrent(x[:, :, None])[0][:, -1])

    net = Last().double()
    h = net.recurrent(X[:, :, None])[0]
    found = look(seen, net, flat=0.9)
    assert found["mean/recurrent"] == pytest.approx(h.mean().item(), abs=1e-6)
    share = (1 - h.square() <= 0.9).double().mean().item()
    assert found["saturated/recurrent"] == pytest.approx(share, abs=1e-6)


def test_a_model_without_activations_is_refused(run):
    for name in ("linear", "lstm"):
        with pytest.raises(ConfigError, match=r"diagnostics\.activations: the model has no layer"):
            run("data=iris", f"model={name}", "diagnostics=[activations]")
