"""A function of tensors, played back as the list of operations it came to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., tuple[Tensor, ...]]

PATIENCE = 16
"""Calls with tensors of one kind before they are worth recording, which takes some fifty calls."""


class TracedFunction:
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
        with _plain(tensors[0].device.type):
            found: tuple[Tensor, ...] = tape(*(t.detach() for t in tensors))
        return found

    def _tape(self, tensors: Sequence[Tensor]) -> Callable[..., Any]:
        """Record on copies, so that what the function changes in place is not changed twice."""
        twins = (_twin(t).requires_grad_(t.requires_grad) for t in tensors)
        return _compiled(make_fx(self.function)(*twins))


@contextmanager
def _plain(device: str) -> Iterator[None]:
    """Operations are done as they were recorded: no gradient, no casts, none fused."""
    with torch.no_grad(), without_autocast(device), torch.jit.optimized_execution(False):
        yield


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Whatever casts are on are off inside the block; where none are, that costs nothing."""
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def _compiled(tape: torch.fx.GraphModule) -> Callable[..., Any]:
    """The same operations called one after another without Python, which took a fifth of a step.

    ``torch.jit`` is on its way out and ``torch.compile`` is no heir to it: that writes kernels of
    its own, in seconds, where this takes milliseconds. What it cannot read, Python goes on calling.
    """
    operations = {node: node.target for node in tape.graph.nodes}
    for node, operation in operations.items():
        if isinstance(operation, torch._ops.OpOverload):
            node.target = operation.overloadpacket  # its reader picks the overload by the arguments
    tape.recompile()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled: Callable[..., Any] = torch.jit.script(tape)
    except (RuntimeError, torch.jit.frontend.NotSupportedError):
        for node, operation in operations.items():
            node.target = operation
        tape.recompile()
        return tape
    return compiled


def _twin(tensor: Tensor) -> Tensor:
    """A copy that lies in memory as the tensor does; one that repeats itself is not written to."""
    if 0 in tensor.stride():
        return tensor.detach()
    twin = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return twin.copy_(tensor.detach())
