"""The space of the weights: named tensors as one flat vector."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Space:
    """ℝᵖ: the parameters in a fixed order, each row by row, one after another.

    Leading dimensions are kept: a stack of vectors [..., p] is a mapping to tensors
    [..., *shape]. The vector has the widest dtype among the parameters; ``named`` gives each
    parameter its own back.

    >>> space = Space({"a": torch.zeros(2, 2), "b": torch.zeros(1)})
    >>> space.size, space.named(torch.arange(5.0))["a"].tolist()
    (5, [[0.0, 1.0], [2.0, 3.0]])
    >>> space.flat(space.named(torch.arange(5.0))).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """

    def __init__(self, like: Mapping[str, Tensor]) -> None:
        self.shapes = {name: p.shape for name, p in like.items()}
        self.dtypes = {name: p.dtype for name, p in like.items()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def flat(self, named: Mapping[str, Tensor]) -> Tensor:
        """One vector [..., p] of tensors [..., *shape]."""
        parts = []
        for name, shape in self.shapes.items():
            tensor = named[name]
            leading = tensor.shape[: tensor.ndim - len(shape)]
            parts.append(tensor.reshape(*leading, math.prod(shape)))
        return torch.cat(parts, -1)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors [..., *shape] by name, of a vector [..., p]; views where the dtype is its own."""
        parts = zip(self.shapes.items(), vector.split(self.sizes, -1), strict=True)
        return {
            name: part.reshape(*vector.shape[:-1], *shape).to(self.dtypes[name])
            for (name, shape), part in parts
        }
