"""A constant learning rate, and the decays that torch does not have."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from truerisk.core.errors import ConfigError, suggest


class Constant(LRScheduler):
    """The learning rate stays as it is: lrₜ = lr.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> Constant(optimizer).get_last_lr()
    [0.1]
    """

    last_index = 0
    """Where the schedule ends: there is nothing to do after its first value."""

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return a learning rate a group."""
        return [group["lr"] for group in self.optimizer.param_groups]


class InverseSqrt(LRScheduler):
    """lrₜ = lr · √(T / (T + t)), with T the timescale.

    After a linear warmup of T steps this is the schedule of Vaswani et al. (2017, section 5.3), up
    to its constant: lr ∝ min(s⁻⁰·⁵, s·T⁻¹·⁵) at step s = T + t.

    Args:
        optimizer: whose learning rates are scheduled.
        timescale: T, in steps.

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
        """Return a learning rate a group at the current step."""
        # from the first rate, not from the one before: no rounding adds up
        factor = math.sqrt(self.timescale / (self.timescale + self.last_epoch))
        return [float(lr) * factor for lr in self.base_lrs]


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: 1 - u,
    "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
    "sqrt": lambda u: 1 - math.sqrt(u),
}
"""How far above its end the rate still is, when a share u of the decay has gone by."""


class WarmupStableDecay(LRScheduler):
    """lrₜ = lr until the decay begins, then down to end_factor·lr at t = total_iters.

    In the decay, lrₜ = lr · (e + (1 − e)·s(u)) with e the end factor, u the share of the decay that
    has gone by, and s(u) = 1 − u (linear), (1 + cos πu)/2 (cosine) or 1 − √u (sqrt). The warmup of
    the name is the one every schedule can have. Sources: Hu et al. (2024, section 4); Hägele et al.
    (2024) for the square root.

    Args:
        optimizer: whose learning rates are scheduled.
        total_iters: step at which the decay ends.
        decay: steps of the decay.
        shape: linear, cosine or sqrt.
        end_factor: last learning rate relative to the first.

    Raises:
        ConfigError: an unknown shape, or a decay longer than the whole.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = WarmupStableDecay(optimizer, total_iters=4, decay=2)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 1.0, 0.5, 0.0]
    """

    lengths = ("total_iters", "decay")

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        decay: int,
        shape: str = "linear",
        end_factor: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if shape not in SHAPES:
            raise ConfigError(f"scheduler.shape is {shape!r}; {suggest(shape, SHAPES)}")
        if decay > total_iters:
            raise ConfigError(
                f"scheduler.decay is {decay} steps of the {total_iters} there are; make it shorter"
            )
        self.total_iters, self.decay = total_iters, decay
        self.shape, self.end_factor = shape, end_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return a learning rate a group at the current step."""
        start = self.total_iters - self.decay
        u = min(1.0, max(0, self.last_epoch - start) / self.decay)
        factor = self.end_factor + (1 - self.end_factor) * SHAPES[self.shape](u)
        return [float(lr) * factor for lr in self.base_lrs]
