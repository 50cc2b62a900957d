"""Decay with the inverse square root of time."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from truerisk.core.errors import ConfigError


class InverseSqrt(LRScheduler):
    """lrₜ = lr · √(T / (T + t)), with T the timescale.

    After a linear warmup of T steps this is the schedule of Vaswani et al. (2017, section 5.3), up
    to its constant: lr ∝ min(s⁻⁰·⁵, s·T⁻¹·⁵) at step s = T + t.

    Raises:
        ConfigError: the timescale is not positive.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = InverseSqrt(optimizer, timescale=1)
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    lengths = ("timescale",)

    def __init__(self, optimizer: Optimizer, timescale: int, last_epoch: int = -1) -> None:
        if timescale <= 0:
            raise ConfigError(f"scheduler.timescale is {timescale}; it must be positive")
        self.timescale = timescale
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rates at the current step."""
        factor = math.sqrt(self.timescale / (self.timescale + self.last_epoch))
        return [float(lr) * factor for lr in self.base_lrs]
