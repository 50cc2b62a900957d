"""What a kernel sees of a signal as it slides along it, with the samples last in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Taps = Iterator[tuple[int, slice, slice]]


def unfold_signals(
    signals: Tensor, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Copy the windows of signals.

    ``out[:, :, j, l] = signals[:, :, l·stride + j·dilation − padding]``

    Args:
        signals: [K, c, L, n], with zeros beyond their ends.
        kernel: entries of a window.
        stride: positions between two windows.
        padding: zeros at either end.
        dilation: positions between two entries of a window.

    Returns:
        [K, c, kernel, L′, n].
    """
    # copied tap by tap, in runs of samples: the backward of torch's own ``unfold``, a view, took a
    # third of a step
    out: Tensor = _UnfoldFunction.apply(signals, kernel, stride, padding, dilation)
    return out


class _UnfoldFunction(torch.autograd.Function):
    """The windows, and the transposed map for their gradient."""

    @staticmethod
    def forward(ctx: Any, signals: Tensor, kernel: int, *options: int) -> Tensor:
        ctx.length, ctx.options = signals.shape[2], options
        size = _count_positions(ctx.length, kernel, *options)
        out = signals.new_zeros(*signals.shape[:2], kernel, size, signals.shape[3])
        for tap, there, here in _iterate_taps(ctx.length, kernel, size, *options):
            out[:, :, tap, there] = signals[:, :, here]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        members, channels, kernel, size, samples = grad.shape
        out = grad.new_zeros(members, channels, ctx.length, samples)
        for tap, there, here in _iterate_taps(ctx.length, kernel, size, *ctx.options):
            out[:, :, here] += grad[:, :, tap, there]
        return out, None, None, None, None


def _count_positions(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _iterate_taps(
    length: int, kernel: int, size: int, stride: int, padding: int, dilation: int
) -> Taps:
    """Yield each tap of the kernel, the windows in which it is on the signal, and what it reads."""
    for tap in range(kernel):
        offset = tap * dilation - padding
        first = max(0, -(offset // stride))
        last = min(size, (length - 1 - offset) // stride + 1)
        if first < last:
            start = first * stride + offset
            here = slice(start, start + (last - first - 1) * stride + 1, stride)
            yield tap, slice(first, last), here
