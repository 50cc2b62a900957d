"""A weight layer with its normalization and activation: what most models are stacked from."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from torch import nn

from truerisk.model.activation import activation
from truerisk.model.normalization import normalization

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d}


class Style(NamedTuple):
    """What the layers of one model have in common."""

    activation: str = "relu"
    normalization: str = "none"
    groups: int = 1
    bias: bool = True

    @property
    def layer_bias(self) -> bool:
        """Whether weight layers have a bias: not before batch norm, which subtracts it again."""
        return self.bias and self.normalization != "batch"


def linear_block(inputs: int, outputs: int, style: Style) -> nn.Sequential:
    """Linear layer, normalization, activation: [n, inputs] → [n, outputs]."""
    layer = nn.Linear(inputs, outputs, bias=style.layer_bias)
    norm = normalization(style.normalization, outputs, groups=style.groups)
    return chain(linear=layer, normalization=norm, activation=activation(style.activation))


def conv_block(
    dims: int,
    inputs: int,
    outputs: int,
    style: Style,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    activate: bool = True,
) -> nn.Sequential:
    """Convolution over ``dims`` dimensions, normalization and, if ``activate``, activation."""
    layer = CONVOLUTION[dims](
        inputs, outputs, kernel, stride=stride, padding=padding, bias=style.layer_bias
    )
    norm = normalization(style.normalization, outputs, dims, style.groups)
    last = activation(style.activation) if activate else None
    return chain(conv=layer, normalization=norm, activation=last)


def chain(**modules: nn.Module | None) -> nn.Sequential:
    """A Sequential with named members, those that are None left out."""
    return nn.Sequential(OrderedDict((k, m) for k, m in modules.items() if m is not None))
