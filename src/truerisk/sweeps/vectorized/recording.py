"""A function of tensors, played back as the list of operations it came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., tuple[Tensor, ...]]

PATIENCE = 16
"""Calls with tensors of one kind before they are worth recording, which takes some fifty calls."""


class Recorded:
    """Calls a function as it is, and from some call on plays back what it did to the tensors.

    Gradients, ``vmap`` and the model's own Python are spent once for each kind of arguments; what
    is left are the operations on stacked tensors themselves, so the results are the same to the
    bit. The function must do the same to tensors of the same types and shapes, whatever they hold,
    and draw nothing at random.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._calls: dict[Any, int] = {}
        self._tapes: dict[Any, Callable[..., Any]] = {}

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The function of some tensors."""
        kind = tuple((t.shape, t.stride(), t.dtype) for t in tensors)
        tape = self._tapes.get(kind)
        if tape is None:
            self._calls[kind] = self._calls.get(kind, 0) + 1
            if self._calls[kind] < PATIENCE:
                return self.function(*tensors)
            tape = self._tapes[kind] = self._tape(tensors)
        with torch.no_grad(), torch.autocast(tensors[0].device.type, enabled=False):
            return tape(*(t.detach() for t in tensors))

    def _tape(self, tensors: Sequence[Tensor]) -> Callable[..., Any]:
        """Record on copies, so that what the function changes in place is not changed twice."""
        return make_fx(self.function)(*(_twin(t).requires_grad_(t.requires_grad) for t in tensors))


def _twin(tensor: Tensor) -> Tensor:
    """A copy that lies in memory as the tensor does; one that repeats itself is not written to."""
    if 0 in tensor.stride():
        return tensor.detach()
    twin = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return twin.copy_(tensor.detach())
