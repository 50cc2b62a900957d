"""Which parameters an initializer sets, and which it leaves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.initializer import Initializer, identity_
from truerisk.initializer.initializer import bias_vectors, weight_matrices


class Raw(nn.Module):
    """A user's model, with parameters that no layer owns."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.full((2, 3), 7.0))
        self.positions = nn.Embedding(4, 5)
        self.norm = nn.LayerNorm(5)
        self.batch_norm = nn.BatchNorm1d(5)
        self.linear = nn.Linear(5, 6)


def test_norms_embeddings_and_raw_parameters_are_left_alone():
    model = Raw()
    before = {n: p.clone() for n, p in model.named_parameters()}
    Initializer(nn.init.zeros_, bias=0.25)(model)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"linear.weight", "linear.bias"}
    assert model.linear.bias.unique().tolist() == [0.25]


@pytest.mark.parametrize(
    "layer,expected",
    [
        (nn.LSTM(2, 3, 2, bidirectional=True), 2 * 4 * 2 * 2),
        (nn.LSTM(2, 5, proj_size=3), 4 + 4 + 1),
        (nn.GRUCell(2, 3), 6),
        (nn.RNN(2, 3, bias=False), 2),
        (nn.MultiheadAttention(6, 2), 4),
        (nn.MultiheadAttention(6, 2, kdim=4, vdim=3), 4),
        (nn.TransformerEncoderLayer(6, 2, 12), 4 + 2),
        (nn.Conv2d(4, 6, 3, groups=2), 2),
    ],
)
def test_every_matrix_is_found_once(layer, expected):
    found = list(weight_matrices(layer))
    assert len(found) == expected
    Initializer(nn.init.ones_, bias=1.0)(layer)
    rest = [p for n, p in layer.named_parameters() if "norm" not in n]
    assert all((p == 1).all() for p in rest)
    total = sum(p.numel() for p in rest)
    biases = sum(b.numel() for b in bias_vectors(layer))
    assert sum(m.weight.numel() for m in found) + biases == total


def test_a_scheme_sees_gates_as_they_lie_in_the_parameter():
    layer, values = nn.GRU(2, 4, bias=False), iter(range(6))
    Initializer(lambda w: w.fill_(next(values)))(layer)
    assert layer.weight_ih_l0[:, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert layer.weight_hh_l0[:, 0].tolist() == [3.0] * 4 + [4.0] * 4 + [5.0] * 4


def test_a_transposed_convolution_is_seen_as_outputs_by_inputs():
    layer, shapes = nn.ConvTranspose1d(4, 6, 3, groups=2), []
    Initializer(lambda w: shapes.append(tuple(w.shape)))(layer)
    assert shapes == [(3, 2, 3), (3, 2, 3)]


def test_channels_last_weights_keep_their_layout():
    layer = nn.Conv2d(8, 6, 3).to(memory_format=torch.channels_last)
    Initializer(nn.init.orthogonal_)(layer)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    w = layer.weight.detach().reshape(6, -1)
    torch.testing.assert_close(w @ w.T, torch.eye(6), atol=1e-5, rtol=0)


def test_bias_none_keeps_biases():
    layer = nn.GRU(2, 3)
    before = layer.bias_ih_l0.clone()
    Initializer(nn.init.zeros_)(layer)
    assert torch.equal(layer.bias_ih_l0, before)


def test_parameters_stay_the_same_trainable_objects_and_dtype():
    layer = nn.Linear(3, 2).double()
    weight = layer.weight
    Initializer(nn.init.orthogonal_, bias=0.0, gain=2.0)(layer)
    assert layer.weight is weight and weight.requires_grad and weight.is_leaf
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(2).double())


def test_recurrent_schemes_need_recurrent_weights():
    with pytest.raises(ConfigError, match="model=rnn"):
        Initializer(recurrent=identity_)(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "scheme",
    [
        lambda w: nn.init.normal_(w, std=-1.0),
        lambda w: nn.init.kaiming_normal_(w, nonlinearity="gelu"),
        lambda w: nn.init.kaiming_normal_(w, mode="fan"),
        lambda w: nn.init.normal_(w, std="wide"),
    ],
)
def test_numbers_a_scheme_refuses(scheme):
    with pytest.raises(ConfigError, match=r"initializer\.weight"):
        Initializer(scheme)(nn.Linear(2, 2))


@pytest.mark.parametrize("numbers", [{"gain": "big"}, {"bias": "none"}, {"gain": True}])
def test_numbers_that_are_none(numbers):
    with pytest.raises(ConfigError, match=f"initializer.{next(iter(numbers))}"):
        Initializer(nn.init.zeros_, **numbers)
