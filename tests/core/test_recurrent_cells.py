"""One step of each cell against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from truerisk.core.recurrent_cells import elman_state, gru_state, lstm_state

N, FEATURES, WIDTH = 4, 3, 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def products(cell, x, h):
    """W x + b and U h + c."""
    return F.linear(x, cell.weight_ih, cell.bias_ih), F.linear(h, cell.weight_hh, cell.bias_hh)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_elman(kind):
    cell = nn.RNNCell(FEATURES, WIDTH, nonlinearity=kind, dtype=torch.float64)
    x, h = drawn(N, FEATURES), drawn(N, WIDTH)
    new = elman_state(*products(cell, x, h), getattr(torch, kind))
    torch.testing.assert_close(new, cell(x, h), rtol=0, atol=1e-14)
    residual = elman_state(*products(cell, x, h), getattr(torch, kind), h)
    torch.testing.assert_close(residual, h + new, rtol=0, atol=0)


def test_lstm():
    cell = nn.LSTMCell(FEATURES, WIDTH, dtype=torch.float64)
    x, h, c = drawn(N, FEATURES), drawn(N, WIDTH), drawn(N, WIDTH)
    states = lstm_state(sum(products(cell, x, h)), c)
    torch.testing.assert_close(states, cell(x, (h, c)), rtol=0, atol=1e-14)


def test_gru():
    cell = nn.GRUCell(FEATURES, WIDTH, dtype=torch.float64)
    x, h = drawn(N, FEATURES), drawn(N, WIDTH)
    torch.testing.assert_close(gru_state(*products(cell, x, h), h), cell(x, h), rtol=0, atol=1e-14)


def test_features_may_stand_in_another_dimension():
    gates, c = drawn(N, 4 * WIDTH), drawn(N, WIDTH)
    h = lstm_state(gates, c)[0]
    assert torch.equal(lstm_state(gates.T.contiguous(), c.T.contiguous(), dim=0)[0].T, h)
    x, u = drawn(N, 3 * WIDTH), drawn(N, 3 * WIDTH)
    moved = gru_state(*(t.T.contiguous() for t in (x, u, c)), dim=0).T
    torch.testing.assert_close(moved, gru_state(x, u, c), rtol=0, atol=1e-15)
