"""The layers of a model, as the owners of its parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to; one that the model itself owns stands for itself.

    >>> layer_of("hidden.0.linear.weight"), layer_of("positions")
    ('hidden.0.linear', 'positions')
    >>> layer_of("output.parametrizations.weight.original")
    'output'
    """
    owner = name.partition(".parametrizations.")[0]
    return owner if owner != name else name.rpartition(".")[0] or name


def by_layer(named: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Parameters, or other tensors by their names, a layer at a time, in the model's order."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        layers.setdefault(layer_of(name), {})[name] = tensor
    return layers


def norms(named: Mapping[str, Tensor]) -> dict[str, float]:
    """The Euclidean norm over all of a layer's tensors, by layer.

    >>> norms({"a.weight": torch.tensor([3.0]), "a.bias": torch.tensor([4.0])})
    {'a': 5.0}
    """
    squares: dict[str, float] = {}
    values = torch.stack(torch._foreach_norm(list(named.values()))).tolist() if named else []
    for name, value in zip(named, values, strict=True):
        squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + value**2
    return {layer: square**0.5 for layer, square in squares.items()}
