"""Momentum that mirrors the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer


def mirror(optimizer: Optimizer, heights: Sequence[float], low: float, high: float) -> None:
    """Set momentum to high − height·(high − low), with one height in [0, 1] a parameter group.

    Momentum is ``betas[0]`` or ``momentum``, whichever a group has. A group whose momentum is off
    is left alone, and so are optimizers that switch between train and eval modes, since they
    compute their average from the momentum.
    """
    if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
        return
    for group, height in zip(optimizer.param_groups, heights, strict=True):
        _set(group, high - height * (high - low))


def _set(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif group.get("momentum"):
        group["momentum"] = value
