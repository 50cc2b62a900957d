"""The written-out recurrent layer against torch's, by hand, and by an equivalence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.model.recurrent import ElmanLayer

X = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(cell, *sizes, **options):
    torch.manual_seed(1)
    return cell(*sizes, batch_first=True, **options).double()


@pytest.mark.parametrize("kind", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_is_torchs_layer_where_torch_has_one(kind, bias, bidirectional):
    options = {"nonlinearity": kind, "bias": bias, "bidirectional": bidirectional}
    ours, theirs = (made(cell, 2, 3, 2, **options) for cell in (ElmanLayer, nn.RNN))
    start = torch.randn(2 * (1 + bidirectional), 4, 3, dtype=torch.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for given in ((X,), (X, start)):
        for mine, other in zip(ours(*given), theirs(*given), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-14)


def test_a_residual_layer_without_weights_keeps_its_state():
    layer = made(ElmanLayer, 2, 3, residual=True)
    start = torch.randn(1, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    states, last = layer(X, start)
    assert torch.equal(last, start) and torch.equal(states, start[0][:, None].expand(4, 6, 3))


def test_a_residual_layer_adds_what_a_plain_one_would_say():
    layer, h = made(ElmanLayer, 2, 3, residual=True), torch.zeros(4, 3, dtype=torch.float64)
    for x in X.unbind(1):
        driven = x @ layer.weight_ih_l0.T + layer.bias_ih_l0
        h = h + torch.tanh(driven + h @ layer.weight_hh_l0.T + layer.bias_hh_l0)
    torch.testing.assert_close(layer(X)[0][:, -1], h, rtol=0, atol=1e-14)


def test_sigmoid_is_tanh_of_half_the_sum_shifted():
    """σ(x) = (1 + tanh(x/2))/2, so h = (1 + s)/2 with s a network of tanh whose weights are U/4."""
    layer, plain = made(ElmanLayer, 2, 3, nonlinearity="sigmoid"), made(nn.RNN, 2, 3)
    with torch.no_grad():
        plain.weight_ih_l0.copy_(layer.weight_ih_l0 / 2)
        plain.weight_hh_l0.copy_(layer.weight_hh_l0 / 4)
        plain.bias_ih_l0.copy_(layer.bias_ih_l0 / 2)
        plain.bias_hh_l0.copy_(layer.bias_hh_l0 / 2 + layer.weight_hh_l0.sum(1) / 4)
    start = torch.rand(1, 4, 3, dtype=torch.float64)
    expected = (1 + plain(X, 2 * start - 1)[0]) / 2
    torch.testing.assert_close(layer(X, start)[0], expected, rtol=0, atol=1e-14)


def test_dropout_lies_between_layers_alone():
    layer = made(ElmanLayer, 2, 3, 2, dropout=1.0)
    first = made(ElmanLayer, 2, 3, 2)
    with torch.no_grad():
        first.weight_ih_l1.zero_()
    torch.testing.assert_close(layer(X)[0], first(X)[0])
    assert not torch.allclose(layer.eval()(X)[0], first(X)[0])
