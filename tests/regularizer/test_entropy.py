"""The confidence penalty."""

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from torch import nn

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.regularizer import Entropy, Forward


def penalty(outputs, y=None, coefficient=1.0):
    y = torch.zeros(len(outputs), dtype=torch.int64) if y is None else y
    batch = Batch(torch.zeros(len(outputs), 1), y)
    return Entropy(coefficient).penalty(Forward({}, batch, outputs, lambda x: x))


def test_against_scipy():
    torch.manual_seed(0)
    outputs = torch.randn(20, 5, dtype=torch.float64)
    expected = -0.7 * scipy_entropy(outputs.softmax(1).numpy(), axis=1).mean()
    assert float(penalty(outputs, coefficient=0.7)) == pytest.approx(expected, rel=1e-12)


def test_a_single_logit_is_two_classes():
    z = torch.linspace(-30, 30, 61, dtype=torch.float64)[:, None]
    pair = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(penalty(z), penalty(pair))


def test_extremes():
    assert float(penalty(torch.zeros(3, 7))) == pytest.approx(-math.log(7), rel=1e-6)
    sure = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    value = penalty(sure)
    value.backward()
    assert float(value.detach()) == 0 and sure.grad.isfinite().all()


def test_descent_raises_the_entropy():
    outputs = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    penalty(outputs).backward()
    before = outputs.detach()
    assert float((before - outputs.grad).softmax(1).max()) < float(before.softmax(1).max())


def test_maps_and_differentiates():
    stacked = torch.randn(2, 6, 3)
    values = torch.vmap(penalty)(stacked)
    torch.testing.assert_close(values[1], penalty(stacked[1]))
    gradient = torch.func.grad(penalty)(stacked[0])
    o = nn.Parameter(stacked[0])
    penalty(o).backward()
    torch.testing.assert_close(gradient, o.grad)


def test_half_precision_is_raised():
    assert penalty(torch.randn(4, 3).bfloat16()).dtype == torch.float32


def test_regression_is_refused():
    with pytest.raises(ConfigError, match=r"regularizer=entropy.*regression"):
        penalty(torch.zeros(2, 1), torch.zeros(2, 1))
