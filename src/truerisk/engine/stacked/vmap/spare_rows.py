"""Rows to spare at the end of a stack, so that a member's last digits are the same in any company.

torch takes the numbers of a stack in runs of equal length. What is left over at the end it takes
one by one, by other approximations of exp or tanh, and adds up in another order; of a stack of one
member it takes the axes in another order altogether.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from truerisk.engine.stacked.member_code.compiled_function import (
    CompiledFunction,
    PickedRows,
    pick_all,
)
from truerisk.engine.stacked.vmap.traced_function import TracedFunction, copy_with_strides

RUN = 4 * (64 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 32)
"""Bytes that are taken at a time at most: four registers."""

ROUNDED = frozenset(
    {"add", "sub", "rsub", "mul", "div", "neg", "abs", "sign", "sqrt", "reciprocal", "relu"}
    | {"threshold_backward", "maximum", "minimum", "clamp", "clamp_min", "clamp_max", "where"}
    | {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isfinite", "logical_not", "logical_and"}
    | {"logical_or", "bitwise_not", "bitwise_and", "bitwise_or", "copy", "fill", "clone"}
    | {"_to_copy"}
)
"""Operations that IEEE 754 rounds correctly, however many numbers are taken at a time."""
REDUCTIONS = {"sum": 1, "mean": 1, "prod": 1, "var": 1, "std": 1, "var_mean": 1} | {
    "linalg_vector_norm": 2
}
"""Operations that add up along axes, and which of their arguments those are."""
CHANNELS = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit", "native_batch_norm_backward"}
)
"""Operations on [n, channels, …] that add up along the first axis."""


class SpareRows:
    """Call a function of stacked tensors with as many rows more as its operations ask for.

    Args:
        function: of tensors [K, …], each of whose results has a row for each of theirs.
        moved: which of the tensors it changes in place.
        undone: takes back what the function has drawn at random inside the block.
        compiled: the same function as machine code, which needs no such rows.
    """

    def __init__(
        self,
        function: TracedFunction,
        moved: slice = slice(0),
        undone: Callable[[], AbstractContextManager[None]] = nullcontext,
        compiled: CompiledFunction | None = None,
    ) -> None:
        self.function, self.moved, self.undone = function, moved, undone
        self.compiled = compiled
        self._counts: dict[Any, int] = {}

    def rehearse(self, given: Sequence[Tensor | PickedRows]) -> None:
        """Call the function of the first member alone, and take back all that this changes."""
        first = [t.first if isinstance(t, PickedRows) else t[:1] for t in given]
        with self.undone():
            self.function.function(*self._copy_moved(pick_all(first)))

    def _copy_moved(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        own = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
        own[self.moved] = map(copy_with_strides, own[self.moved])
        return own

    def count(self, tensors: Sequence[Tensor]) -> int:
        """Count the rows that are to be added to tensors like these.

        The first time it calls the function, on copies of what that changes.
        """
        if tensors[0].device.type != "cpu":
            return 0
        kind = tuple((t.shape, t.dtype) for t in tensors)
        if kind not in self._counts:
            with self.undone(), _LooseEnds(len(tensors[0])) as found:
                self.function.function(*self._copy_moved(tensors))
            self._counts[kind] = found.count
        return self._counts[kind]

    def __call__(
        self, given: Sequence[Tensor | PickedRows], into: Sequence[Tensor | None] = ()
    ) -> tuple[Tensor, ...]:
        """Return the function of some tensors, computed with rows to spare.

        Args:
            given: [K, …].
            into: what each result may be written to, if that is what machine code does.
        """
        code = None if self.compiled is None else self.compiled.find_code(given)
        if code is not None:
            return code(given, into)
        tensors = pick_all(given)
        count = self.count(tensors)
        if not count:
            return self.function(tensors)
        longer = [add_rows(tensor, count) for tensor in tensors]
        results = self.function(longer)
        for own, copy in zip(tensors[self.moved], longer[self.moved], strict=True):
            own.copy_(copy[:-count])
        return tuple(result[:-count] for result in results)


def add_rows(tensor: Tensor, count: int) -> Tensor:
    """Add rows at the end of a tensor [K, …], each the same as its first."""
    rows = len(tensor) + count
    if tensor.stride(0) == 0:  # one row, shown K times
        return tensor[:1].expand(rows, *tensor.shape[1:])
    more = tensor[:1].expand(count, *tensor.shape[1:])
    return torch.cat([tensor, more]).detach().requires_grad_(tensor.requires_grad)


class _LooseEnds(TorchDispatchMode):
    """See whether the last numbers of a stack are computed otherwise than the others.

    Attributes:
        count: rows after which those are no member's.
    """

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members
        self.count = int(members == 1)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would load TorchDynamo at the first operation, to tell it that it is to skip this
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do an operation, and look at what it gives."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if len(args) > REDUCTIONS.get(name, len(args)):
            self.look_at(args[0].dtype, _count_columns(args[0], args[REDUCTIONS[name]]))
        elif name in CHANNELS:
            self.look_at(args[0].dtype, args[0].shape[1])
        elif torch.Tag.pointwise in func.tags and not _is_rounded(name, args, kwargs or {}):
            for part in result if isinstance(result, tuple) else (result,):
                self.look_at(part.dtype, part.numel())
        return result

    def look_at(self, dtype: torch.dtype, numbers: int) -> None:
        """Count the rows after which the last of so many numbers in a row are no member's."""
        run, (own, shared) = RUN // dtype.itemsize, divmod(numbers, self.members)
        if own and not shared and numbers % run:
            self.count = max(self.count, -(-(run - 1) // own))


def _is_rounded(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether an operation has one right result for each number."""
    if name == "pow":  # a square is a product
        return not isinstance(args[1], Tensor) and args[1] == 2
    return name in ROUNDED and kwargs.get("alpha", 1) == 1


def _count_columns(x: Tensor, axes: Any) -> int:
    """Count the sums that are taken side by side, as they lie closer than what each adds up."""
    added = {
        axis % max(1, x.ndim)
        for axis in ([axes] if isinstance(axes, int) else axes or range(x.ndim))
    }
    step = max((x.stride(axis) for axis in added if x.ndim), default=0)
    inner = [x.shape[i] for i in range(x.ndim) if i not in added and x.stride(i) < step]
    return math.prod(inner) if inner else 0
