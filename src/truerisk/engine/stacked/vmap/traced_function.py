"""A function of tensors, played back as the list of operations it came to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from truerisk.engine.stacked.member_code.layout import NotKnown
from truerisk.engine.stacked.member_code.recording import record_operations

Function = Callable[..., tuple[Tensor, ...]]

PATIENCE = 16
"""Calls with tensors of one kind before they are worth recording, which takes some fifty calls."""


class TracedFunction:
    """Calls a function, and after ``PATIENCE`` calls plays back the operations it came to.

    Gradients, ``vmap`` and the model's own Python are spent once for each kind of arguments; what
    is left are the operations on stacked tensors themselves, so the results are the same to the
    bit.

    Args:
        function: of tensors. It must do the same to tensors of the same dtypes, shapes and strides,
            whatever they hold, and draw nothing at random.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._calls: dict[Any, int] = {}
        self._tapes: dict[Any, Callable[..., Any]] = {}

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the function of some tensors."""
        # strides too: operations that were recorded on one layout may be views on that one only
        kind = tuple((t.shape, t.stride(), t.dtype) for t in tensors)
        tape = self._tapes.get(kind)
        if tape is None:
            self._calls[kind] = self._calls.get(kind, 0) + 1
            if self._calls[kind] < PATIENCE:
                return self.function(*tensors)
            tape = self._tapes[kind] = self._record(tensors)
        if tape is self.function:  # no recording of it can be played back
            return self.function(*tensors)
        with _as_recorded(tensors[0].device.type):
            results: tuple[Tensor, ...] = tape(*(t.detach() for t in tensors))
        return results

    def _record(self, tensors: Sequence[Tensor]) -> Callable[..., Any]:
        """Record what the function does."""
        # on copies, so that what it changes in place is not changed twice
        copies = [copy_with_strides(t).requires_grad_(t.requires_grad) for t in tensors]
        try:
            return _compile(record_operations(self.function, copies))
        except NotKnown:
            return self.function


@contextmanager
def _as_recorded(device: str) -> Iterator[None]:
    """Do operations as they were recorded: gradients and casts are among them already."""
    # nor fused, which would round differently
    with torch.no_grad(), without_autocast(device), torch.jit.optimized_execution(False):
        yield


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Turn autocast off inside the block."""
    # entering torch.autocast costs as much as a small operation: not where it is off anyway
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _compile(tape: torch.fx.GraphModule) -> Callable[..., Any]:
    """Have the same operations called without Python, which took a fifth of a step, if possible."""
    # torch.jit is deprecated from torch 2.11 on, in favor of torch.export. torch.compile takes
    # seconds for kernels of its own, which round differently; this takes milliseconds for the same.
    # Where it is gone, or cannot read an operation, Python goes on calling them.
    operations = {node: node.target for node in tape.graph.nodes}
    for node, operation in operations.items():
        if isinstance(operation, torch._ops.OpOverload):
            # the reader of torch.jit picks the overload by the arguments, and knows none by name
            node.target = operation.overloadpacket
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


def copy_with_strides(tensor: Tensor) -> Tensor:
    """Copy a tensor as it lies in memory."""
    # one that repeats itself, by a stride of zero, is not written to
    if 0 in tensor.stride():
        return tensor.detach()
    copy = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return copy.copy_(tensor.detach())
