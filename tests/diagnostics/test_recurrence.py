"""Jacobians of recurrent layers against closed forms, autograd and their bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from truerisk.diagnostics.recurrence import (
    bound_jacobian,
    jacobian_norms,
    spectral_radii,
    split_directions,
)
from truerisk.model.recurrent import ElmanLayer

KINDS = {
    "tanh": lambda **o: nn.RNN(2, 3, batch_first=True, **o),
    "relu": lambda **o: nn.RNN(2, 3, batch_first=True, nonlinearity="relu", **o),
    "sigmoid": lambda **o: ElmanLayer(2, 3, nonlinearity="sigmoid", batch_first=True, **o),
    "residual": lambda **o: ElmanLayer(2, 3, residual=True, batch_first=True, **o),
    "lstm": lambda **o: nn.LSTM(2, 3, batch_first=True, **o),
    "gru": lambda **o: nn.GRU(2, 3, batch_first=True, **o),
}
STEPS = 7


def made(kind, **options):
    torch.manual_seed(1)
    layer = KINDS[kind](**options).double()
    return layer, torch.randn(4, STEPS, 2, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_states_are_those_of_torch(kind, bias):
    layer, x = made(kind, num_layers=2, bidirectional=True, bias=bias)
    *_, (forward, one, read), (backward, other, flipped) = split_directions(layer, x)
    assert (forward, backward) == (".1", ".1.reverse")
    mine = one.unroll_states(read)[..., :3].transpose(0, 1)
    reverse = other.unroll_states(flipped)[..., :3].transpose(0, 1).flip(1)
    torch.testing.assert_close(torch.cat([mine, reverse], -1), layer(x)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_are_those_of_autograd_through_torchs_layer(kind):
    layer, x = made(kind)
    ((_, cell, read),) = split_directions(layer, x)
    norms, states = jacobian_norms(cell, read), cell.unroll_states(read)
    for k in (1, 3, STEPS - 1):
        rest = x[:1, STEPS - k :]

        def last(s, rest=rest):
            h = (s[:3], s[3:]) if kind == "lstm" else (s,)
            start = tuple(part.reshape(1, 1, 3) for part in h)
            _, end = layer(rest, start if kind == "lstm" else start[0])
            return torch.cat([e.flatten() for e in end]) if kind == "lstm" else end.flatten()

        jacobian = torch.autograd.functional.jacobian(last, states[STEPS - 1 - k, 0].detach())
        expected = torch.linalg.matrix_norm(jacobian, 2).item()
        assert norms[k, 0].item() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(norms[0], torch.ones(4, dtype=torch.float64))


def test_a_linear_network_has_the_powers_of_its_weights():
    """A ReLU whose inputs are positive does nothing, and h_T depends on h_t through U^(T−t)."""
    layer = KINDS["relu"]().double()
    with torch.no_grad():
        for p in layer.parameters():
            p.abs_()
    x = torch.rand(4, STEPS, 2, dtype=torch.float64) + 0.1
    ((_, cell, read),) = split_directions(layer, x)
    norms, u = jacobian_norms(cell, read), layer.weight_hh_l0.detach()
    for k in range(STEPS):
        expected = torch.linalg.matrix_norm(torch.linalg.matrix_power(u, k), 2)
        torch.testing.assert_close(norms[k], expected.expand(4), rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", ["tanh", "relu", "sigmoid", "residual"])
@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0])
def test_the_bound_is_never_broken(kind, gain):
    layer, x = made(kind)
    with torch.no_grad():
        layer.weight_hh_l0.mul_(gain)
    ((_, cell, read),) = split_directions(layer, x)
    norms = jacobian_norms(cell, read).amax(1)
    bounds = bound_jacobian(cell) ** torch.arange(STEPS, dtype=torch.float64)
    assert (norms <= bounds * (1 + 1e-12)).all()
    assert norms[1] > 0.05 * bounds[1]


def test_spectral_radius_of_a_shrinking_rotation():
    layer = nn.GRU(2, 2).double()
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.cat([0.5 * turn, 2 * turn, 0 * turn]))
    ((_, cell, _),) = split_directions(layer, torch.zeros(1, 1, 2).double())
    assert spectral_radii(cell) == pytest.approx([0.5, 2, 0], rel=1e-7)


def test_logged_by_gate_layer_and_lag(run):
    short = ["data=iris", "trainer.max_epochs=1", "diagnostics=[recurrence]"]
    names = set(run("model=gru", "model.depth=2", *short).history.name)
    own = {n.removeprefix("recurrence/") for n in names if n.startswith("recurrence/")}
    layers = [f"recurrent.{depth}{way}" for depth in "01" for way in ("", ".reverse")]
    radii = {f"radius/{layer}.{gate}" for layer in layers for gate in "rzn"}
    assert own == radii | {f"norm/{layer}/{k}" for layer in layers for k in range(4)}
    names = set(run("model=rnn", *short).history.name)
    assert {"recurrence/bound/recurrent", "recurrence/radius/recurrent"} <= names


def test_a_model_that_is_not_recurrent_is_refused(run):
    from truerisk.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"diagnostics\.recurrence: the model has no recurrent"):
        run("data=iris", "diagnostics=[recurrence]")
