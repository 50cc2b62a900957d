"""Where the numbers of one member lie, of each tensor that was recorded, and loops over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MARK = 10007
"""Members in a recording: a prime beyond any layer's sizes, so that their axis can be told."""

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.bool: "uint8_t",
}
"""By dtype, that of C."""


class NotKnown(Exception):
    """Say that something recorded has no form for one member."""


class Layout(NamedTuple):
    """The numbers of one member in a tensor, in units of one number.

    Attributes:
        root: a name for the memory, which views share.
        dtype: of the numbers.
        offset: of the first number.
        sizes: without the axis of the members.
        strides: likewise.
        per_member: whether there is such an axis.
    """

    root: Any
    dtype: torch.dtype
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    per_member: bool

    @property
    def type(self) -> str:
        """Name the type of the numbers in C."""
        return TYPES[self.dtype]

    @property
    def extent(self) -> int:
        """Count the numbers up to the last."""
        last = sum((n - 1) * s for n, s in zip(self.sizes, self.strides, strict=True))
        return self.offset + last + 1 if math.prod(self.sizes) else 0


def read_layout(tensor: Tensor) -> Layout:
    """Read the layout of a tensor that was recorded with ``MARK`` members.

    What lies around the members' axis in memory is taken together, as if they were not there.

    Raises:
        NotKnown: the members' numbers do not lie in one order.
    """
    if tensor.dtype not in TYPES:
        raise NotKnown(f"numbers of type {tensor.dtype}")
    axes = [d for d, size in enumerate(tensor.shape) if size and size % MARK == 0]
    if len(axes) > 1:
        raise NotKnown(f"members in several axes of {tuple(tensor.shape)}")
    # as a part of a longer axis they are left out of it
    shape = [size // MARK if d in axes else size for d, size in enumerate(tensor.shape)]
    rest = [d for d in range(tensor.ndim) if d not in axes or shape[d] > 1]
    step = tensor.stride(axes[0]) if axes else 0
    # the stride of an axis of length one is that of nothing
    strides = tuple(_leave_out(tensor.stride(d), step) if shape[d] > 1 else 0 for d in rest)
    sizes = tuple(shape[d] for d in rest)
    offset = _leave_out(int(tensor.storage_offset()), step, True)
    root = tensor.untyped_storage()._cdata
    return Layout(root, tensor.dtype, offset, sizes, strides, bool(axes))


def _leave_out(distance: int, step: int, is_offset: bool = False) -> int:
    """Return a distance in memory without the other members' numbers, each ``step`` of them."""
    if step == 0:  # all members have the same numbers
        return distance
    around, within = divmod(distance, MARK * step)
    if around and within and not is_offset:
        raise NotKnown("members lie within one another")
    return around * step + within


def read_axis(tensor: Tensor, axis: int) -> int:
    """Tell which axis of one member an axis of a recorded tensor is.

    Raises:
        NotKnown: it is that of the members.
    """
    axis %= tensor.ndim
    if tensor.shape[axis] == MARK:
        raise NotKnown("members are taken together")
    return axis - list(tensor.shape[:axis]).count(MARK)


def is_whole(layout: Layout, extent: int) -> bool:
    """Tell whether a layout is that of a contiguous tensor, in memory of so many numbers."""
    expected = 1
    for size, stride in zip(reversed(layout.sizes), reversed(layout.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return layout.offset == 0 and extent == expected


Body = Callable[[Sequence[str]], str]
"""Gives a statement, of the numbers' places in each operand."""


def broadcast_strides(layout: Layout, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the strides at which an operand is read along the axes of the result."""
    missing = len(sizes) - len(layout.sizes)
    own = zip(layout.sizes, layout.strides, strict=True)
    return (0,) * missing + tuple(0 if size == 1 else stride for size, stride in own)


def write_loops(
    sizes: Sequence[int],
    offsets: Sequence[int],
    strides: Sequence[Sequence[int]],
    body: Body,
    by: int = 0,
    side_by_side: bool = True,
) -> str:
    """Write the fewest loops that go through all operands.

    Args:
        sizes: of the axes.
        offsets: of the operands, in numbers; the first is written to.
        strides: an operand, along each axis.
        body: the statement inside.
        by: the operand in whose order it is gone through them.
        side_by_side: whether the innermost statements may be done at once.
    """
    axes = [(size, *steps) for size, *steps in zip(sizes, *strides, strict=True) if size != 1]
    axes.sort(key=lambda axis: (-abs(axis[1 + by]), *(-abs(step) for step in axis[1:])))
    merged: list[tuple[int, ...]] = []
    for size, *steps in axes:
        if merged and all(a == b * size for a, b in zip(merged[-1][1:], steps, strict=True)):
            merged[-1] = (merged[-1][0] * size, *steps)
        else:
            merged.append((size, *steps))
    places = [
        " + ".join(
            [str(offset)]
            + [f"i{i} * {axis[1 + j]}" for i, axis in enumerate(merged) if axis[1 + j]]
        )
        for j, offset in enumerate(offsets)
    ]
    heads = [f"for (int i{i} = 0; i{i} < {axis[0]}; i{i}++)" for i, axis in enumerate(merged)]
    # what is read and what is written are never the same numbers at different places; but several
    # may be added up at one place
    if merged and merged[-1][1] and side_by_side:
        heads.insert(len(heads) - 1, "\n#pragma GCC ivdep\n")
    return " ".join([*heads, body(places)])
