"""Where a run went bad: the first weight, gradient or layer that is not finite."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def first_bad_weight(model: nn.Module) -> str | None:
    """The first parameter that holds an infinity or a nan."""
    return next((f"weight {n!r}" for n, p in model.named_parameters() if not _finite(p)), None)


def first_bad_gradient(model: nn.Module) -> str | None:
    """The first parameter whose gradient is not finite, in order of the forward pass."""
    grads = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    return next((f"the gradient of {n!r}" for n, grad in grads if not _finite(grad)), None)


@torch.no_grad()
def first_bad_output(model: nn.Module, x: Tensor) -> str | None:
    """The first layer, in order of execution, whose output on ``x`` is not finite."""
    bad: list[str] = []

    def watch(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if not bad and isinstance(output, Tensor) and not _finite(output):
            bad.append(name)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(watch, name)))
        model(x)
    return f"the output of layer {bad[0]!r}" if bad else None


def culprit(model: nn.Module, x: Tensor) -> str:
    """Name what is not finite: a weight first, else a layer's output, else a gradient."""
    # a bad weight spoils every output, and a bad output every gradient: causes first
    found = first_bad_weight(model) or first_bad_output(model, x) or first_bad_gradient(model)
    return found or "the loss"
