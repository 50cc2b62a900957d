"""How many CPU threads a model of this size can use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from truerisk.core.deterministic import eval_mode
from truerisk.core.hooks import forward_hooks

WORTHWHILE = 1e8
"""Multiplications in a forward pass from which a second thread begins to pay."""


def choose_threads(model: nn.Module, x: Tensor) -> int:
    """Choose one thread for a small forward pass, all cores for a large one.

    Args:
        model: the model.
        x: a batch of its inputs [n, *input_shape].
    """
    # handing work to a second thread costs tens of µs; next to another busy process, milliseconds
    if count_multiplications(model, x) < WORTHWHILE:
        return 1
    return count_cores()


@torch.no_grad()
def count_multiplications(model: nn.Module, x: Tensor) -> int:
    """Count multiplications by weights in ``model(x)``: each weight times the places it is used at.

    Args:
        model: the model.
        x: a batch of its inputs [n, *input_shape].

    >>> count_multiplications(nn.Linear(3, 2), torch.zeros(5, 3))
    30
    """
    counts: list[int] = []

    def add_count(module: nn.Module, _args: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output  # recurrent layers: (states, last)
        if not isinstance(out, Tensor) or not out.ndim:  # a module that is called for the like
            return
        # convolutions have their channels in front, all other layers at the end
        channels = out.shape[1 if isinstance(module, _ConvNd) else -1]
        weights = sum(p.numel() for p in module.parameters(recurse=False) if p.ndim > 1)
        counts.append(weights * out.numel() // channels)

    owners = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)
    if x.is_floating_point():  # a run casts a model to its precision later
        x = x.to(own)
    # in eval mode nothing is drawn and no running statistic moves
    with forward_hooks((m, add_count) for m in owners), eval_mode(model):
        model(x)
    return sum(counts)


def count_cores() -> int:
    """Count the cores this process may use."""
    # a worker or a cluster's job may be bound to few of the machine's; macOS does not say
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    # one number for the whole process, so it is given back even after an error
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
