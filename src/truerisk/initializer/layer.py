"""The weight matrices and biases of a model's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.rnn import RNNCellBase


class Matrix(NamedTuple):
    """One linear map inside a model: a view [outputs, inputs, *kernel] into a parameter."""

    weight: Tensor
    recurrent: bool = False


def matrices(model: nn.Module) -> Iterator[Matrix]:
    """Every linear map of the linear, convolutional, recurrent and attention layers, in order.

    A parameter that stacks several maps is taken apart, for their fans are those of the parts: a
    recurrent layer's into its gates, attention's into queries, keys and values, a grouped
    convolution's into its groups. Embeddings, norm layers and a model's own raw parameters are no
    such maps.

    >>> [tuple(m.weight.shape) for m in matrices(nn.GRU(2, 5))]
    [(5, 2), (5, 2), (5, 2), (5, 5), (5, 5), (5, 5)]
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            yield Matrix(module.weight)
        elif isinstance(module, _ConvNd):
            transposed = isinstance(module, _ConvTransposeNd)
            for group in module.weight.chunk(module.groups):
                yield Matrix(group.transpose(0, 1) if transposed else group)
        elif isinstance(module, nn.RNNBase | RNNCellBase):
            yield from gates(module)
        elif isinstance(module, nn.MultiheadAttention):
            yield from projections(module)


def gates(module: nn.RNNBase | RNNCellBase) -> Iterator[Matrix]:
    """The input-to-hidden and hidden-to-hidden matrices, one a gate."""
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("weight_hr"):
            yield Matrix(parameter)
        elif name.startswith("weight"):
            for gate in parameter.split(module.hidden_size):
                yield Matrix(gate, recurrent=name.startswith("weight_hh"))


def projections(module: nn.MultiheadAttention) -> Iterator[Matrix]:
    """The query, key and value matrices; the output's is a Linear of its own."""
    if module.in_proj_weight is not None:
        yield from map(Matrix, module.in_proj_weight.chunk(3))
    else:
        for weight in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight):
            yield Matrix(weight)


def biases(model: nn.Module) -> Iterator[Tensor]:
    """Every bias of the layers that `matrices` reads.

    >>> [tuple(b.shape) for b in biases(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))]
    [(3,)]
    """
    layers = (nn.Linear, _ConvNd, nn.RNNBase, RNNCellBase, nn.MultiheadAttention)
    for module in model.modules():
        if isinstance(module, layers):
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith(("bias", "in_proj_bias")):
                    yield parameter
