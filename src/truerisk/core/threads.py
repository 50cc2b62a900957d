"""How many CPU threads a model of this size can use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

WORTHWHILE = 1e8
"""Multiplications in a forward pass from which a second thread begins to pay."""


def suitable(model: nn.Module, x: Tensor) -> int:
    """One thread for a small forward pass on the batch ``x``, all cores for a large one.

    Handing work to a second thread costs tens of µs; next to another busy process, milliseconds.
    """
    return 1 if multiplications(model, x) < WORTHWHILE else cores()


@torch.no_grad()
def multiplications(model: nn.Module, x: Tensor) -> int:
    """Multiplications by weights in ``model(x)``: each weight times the places it is used at.

    >>> multiplications(nn.Linear(3, 2), torch.zeros(5, 3))
    30
    """
    counts: list[int] = []

    def count(module: nn.Module, _args: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        channels = out.shape[1 if isinstance(module, _ConvNd) else -1]
        weights = sum(p.numel() for p in module.parameters(recurse=False) if p.ndim > 1)
        counts.append(weights * out.numel() // channels)

    owners = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    handles = [m.register_forward_hook(count) for m in owners]
    was_training = model.training
    model.eval()(x)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return sum(counts)


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Compute with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
