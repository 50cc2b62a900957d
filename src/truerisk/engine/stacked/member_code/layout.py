"""Where the numbers of one member lie, of each tensor that was recorded."""

from __future__ import annotations

import math
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
    root, offset = tensor.untyped_storage()._cdata, _leave_out(tensor.storage_offset(), step, True)
    return Layout(root, tensor.dtype, offset, sizes, strides, bool(axes))


def _leave_out(distance: int, step: int, is_offset: bool = False) -> int:
    """Return a distance in memory without the other members' numbers, each ``step`` of them."""
    around, within = divmod(distance, MARK * step) if step else (0, distance)
    if within >= max(step, 1) * MARK or (around and within and not is_offset):
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
