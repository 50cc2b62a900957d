"""Inputs that are one tensor, or are read one at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from truerisk.data.samples import Inputs

Part = tuple[Tensor | Inputs, Tensor]
"""The inputs and the targets of a split."""


class Chosen:
    """Some rows of inputs that are read one at a time."""

    def __init__(self, inputs: Inputs, rows: Tensor) -> None:
        self.inputs, self.rows, self.shape = inputs, rows.tolist(), inputs.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.inputs[self.rows[index]]


def take(part: Part, rows: Tensor | None) -> Part | None:
    """The samples at ``rows``; None without rows."""
    if rows is None:
        return None
    x, y = part
    return (x[rows] if isinstance(x, Tensor) else Chosen(x, rows)), y[rows]


def shape_of(x: Tensor | Inputs) -> tuple[int, ...]:
    """The shape of one sample."""
    return tuple(x.shape[1:]) if isinstance(x, Tensor) else x.shape


def stacked(x: Tensor | Inputs) -> Tensor:
    """All inputs in one tensor."""
    if isinstance(x, Tensor):
        return x
    held = torch.empty(len(x), *x.shape)
    for i in range(len(x)):
        held[i] = x[i]
    return held
