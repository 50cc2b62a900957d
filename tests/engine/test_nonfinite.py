"""Where a model first left the finite numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truerisk.engine.nonfinite import (
    culprit,
    first_bad_gradient,
    first_bad_output,
    first_bad_weight,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))


X = torch.ones(5, 3)


def spoil(tensor, value=torch.nan):
    with torch.no_grad():
        tensor.view(-1)[-1] = value


def test_nothing_is_wrong_with_a_finite_model(model):
    model(X).sum().backward()
    assert (
        first_bad_weight(model) is first_bad_gradient(model) is first_bad_output(model, X) is None
    )
    assert culprit(model, X) == "the loss"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weight(model, value):
    spoil(model[3].weight, value)
    assert first_bad_weight(model) == "weight '3.weight'"
    spoil(model[2].bias, value)
    assert first_bad_weight(model) == culprit(model, X) == "weight '2.bias'"


def test_gradient(model):
    assert first_bad_gradient(model) is None
    model(X).sum().backward()
    spoil(model[3].bias.grad, torch.inf)
    assert first_bad_gradient(model) == culprit(model, X) == "the gradient of '3.bias'"
    spoil(model[0].weight.grad)
    assert first_bad_gradient(model) == "the gradient of '0.weight'"


def test_output_of_the_first_layer_in_order_of_execution(model):
    with torch.no_grad():
        model[2].weight.fill_(3e38)
    assert first_bad_weight(model) is None
    assert first_bad_output(model, 10 * X) == "the output of layer '2'"
    assert culprit(model, 10 * X) == "the output of layer '2'"
    assert not any(m._forward_hooks for m in model.modules())


def test_hooks_go_even_if_the_model_fails(model):
    with pytest.raises(RuntimeError):
        first_bad_output(model, torch.ones(5, 7))
    assert not any(m._forward_hooks for m in model.modules())


def test_innermost_layer_is_named(model):
    nested = nn.Sequential(nn.Flatten(), model)
    model[2].register_forward_hook(lambda module, args, output: output / 0)
    assert first_bad_output(nested, X) == "the output of layer '1.2'"


def test_a_bad_weight_comes_before_its_consequences(model):
    model(X).sum().backward()
    for parameter in model.parameters():
        spoil(parameter.grad)
    spoil(model[2].weight)
    assert culprit(model, X) == "weight '2.weight'"
