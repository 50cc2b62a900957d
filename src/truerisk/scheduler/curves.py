"""Curves of the learning rate that torch does not have: decays, triangles, one cycle a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from truerisk.core.checks import check_float
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
    """lrₜ = lr · (T / (T + t))ᵃ, with T the timescale, and the exponent a = ½.

    After a linear warmup of T steps this is the schedule of Vaswani et al. (2017, section 5.3), up
    to its constant: lr ∝ min(s⁻⁰·⁵, s·T⁻¹·⁵) at step s = T + t. With a = 1 steps go as 1/t, as
    Robbins & Monro (1951) ask.

    Args:
        optimizer: whose learning rates are scheduled.
        timescale: T, in steps.
        exponent: a > 0.

    Raises:
        ConfigError: the timescale or the exponent is not positive.

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

    def __init__(
        self, optimizer: Optimizer, timescale: int, last_epoch: int = -1, exponent: float = 0.5
    ) -> None:
        if timescale <= 0:
            raise ConfigError(f"scheduler.timescale is {timescale}; it must be positive")
        self.timescale = timescale
        self.exponent = check_float("scheduler.exponent", exponent, above=True)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return a learning rate a group at the current step."""
        # from the first rate, not from the one before: no rounding adds up
        root = math.sqrt(self.timescale / (self.timescale + self.last_epoch))
        factor = root ** (2 * self.exponent)
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
        end_factor: where the decay ends, relative to the first rate; the rate after ``total_iters``
            steps, which none of them uses.

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


class Cyclic(CyclicLR):
    """Triangles between base_factor·lr and the optimizer's own learning rate lr.

    The shape is that of ``torch.optim.lr_scheduler.CyclicLR``; source: Smith (2017). The top is
    each group's own learning rate, so that sweeping ``optimizer.lr`` sweeps it and groups keep
    their ratios. Momentum falls from ``max_momentum`` to ``base_momentum`` as the rate rises, and
    comes back as it falls; optimizers without momentum are left alone.

    Args:
        optimizer: whose learning rates are scheduled.
        base_factor: bottom over top, in (0, 1).
        step_size_up: steps of a rise.
        step_size_down: steps of a fall; None: as many.
        mode: ``triangular``, ``triangular2`` (half as high every cycle) or ``exp_range``.
        gamma: in ``exp_range`` the height is multiplied by gammaᵗ.
        cycle_momentum: whether momentum mirrors the learning rate.
        base_momentum: momentum at the top.
        max_momentum: momentum at the bottom.

    Raises:
        ConfigError: a number is out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> Cyclic(optimizer, base_factor=0.5, step_size_up=2).get_last_lr()
    [0.5]
    """

    lengths = ("step_size_up", "step_size_down")

    def __init__(
        self,
        optimizer: Optimizer,
        step_size_up: int,
        base_factor: float = 0.1,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        cycle_momentum: bool = False,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < base_factor < 1:
            raise ConfigError(f"scheduler.base_factor is {base_factor}; it must lie in (0, 1)")
        self.mirrored = cycle_momentum
        self.low_momentum, self.high_momentum = base_momentum, max_momentum
        lows = [base_factor * group["lr"] for group in optimizer.param_groups]
        try:
            super().__init__(
                optimizer,
                base_lr=lows,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                step_size_up=step_size_up,
                step_size_down=step_size_down,
                mode=mode,
                gamma=gamma,
                cycle_momentum=False,  # torch's raises where there is no momentum
                last_epoch=last_epoch,
            )
        except ValueError as error:
            raise ConfigError(f"scheduler.mode is {mode!r}: {error}") from error

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return a learning rate a group at the current step; set the momenta too."""
        rates = [float(rate) for rate in super().get_lr()]
        if self.mirrored:
            ends = zip(rates, self.base_lrs, self.max_lrs, strict=True)
            heights = [(lr - low) / (high - low) for lr, low, high in ends]
            mirror_momentum(self.optimizer, heights, self.low_momentum, self.high_momentum)
        return rates


class OneCycle(OneCycleLR):
    """One rise to the optimizer's own learning rate, and one long descent; momentum mirrors it.

    From lr/div_factor up to lr over ``pct_start`` of the cycle, then down to
    lr/(div_factor·final_div_factor), which the last step of the cycle uses and which stays from
    there on. Source: Smith (2018); the shape is that of ``torch.optim.lr_scheduler.OneCycleLR``.

    The peak is each group's own learning rate, so that sweeping ``optimizer.lr`` sweeps it and
    groups keep their ratios. Momentum falls from ``max_momentum`` to ``base_momentum`` as the rate
    rises, and comes back as it falls; optimizers without momentum are left alone.

    Args:
        optimizer: whose learning rates are scheduled.
        total_steps: length of the cycle.
        pct_start: share of the cycle that rises.
        anneal_strategy: cos or linear.
        div_factor: peak over first learning rate.
        final_div_factor: first over last learning rate.
        cycle_momentum: whether momentum mirrors the learning rate.
        base_momentum: momentum at the peak.
        max_momentum: momentum at both ends.

    Raises:
        ConfigError: a number is out of its range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> round(OneCycle(optimizer, total_steps=10, div_factor=25.0).get_last_lr()[0], 6)
    0.04
    """

    lengths = ("total_steps",)

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        last_epoch: int = -1,
    ) -> None:
        self.mirrored, self.last_index = cycle_momentum, total_steps - 1
        self.low_momentum, self.high_momentum = base_momentum, max_momentum
        # a rise of exactly one step would divide zero by zero in torch: start at the peak instead
        rise = 0.0 if float(pct_start) * total_steps == 1 else float(pct_start)
        try:
            super().__init__(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=total_steps,
                pct_start=rise,
                anneal_strategy=anneal_strategy,
                cycle_momentum=False,
                div_factor=div_factor,
                final_div_factor=final_div_factor,
                last_epoch=last_epoch,
            )
        except ValueError as error:
            raise ConfigError(f"scheduler: {error}") from error

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return a learning rate a group at the current step; set the momenta too."""
        rates = [float(rate) for rate in super().get_lr()]
        if self.mirrored:
            ends = "initial_lr" if self.last_epoch <= self.peak else "min_lr"
            groups = zip(self.optimizer.param_groups, rates, strict=True)
            heights = [(lr - g[ends]) / (g["max_lr"] - g[ends]) for g, lr in groups]
            mirror_momentum(self.optimizer, heights, self.low_momentum, self.high_momentum)
        return rates

    @property
    def peak(self) -> float:
        """Step with the highest learning rate."""
        return float(self._schedule_phases[0]["end_step"])


def mirror_momentum(
    optimizer: Optimizer, heights: Sequence[float], low: float, high: float
) -> None:
    """Set momentum to high − height·(high − low), in place.

    Momentum is ``betas[0]`` or ``momentum``, whichever a group has. A group whose momentum is off
    is left alone.

    Args:
        optimizer: whose parameter groups are set.
        heights: of the learning rate between its lowest and highest value, in [0, 1]; one a group.
        low: momentum at height 1.
        high: momentum at height 0.
    """
    # optimizers that switch between train and eval modes compute their average from the momentum
    if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
        return
    for group, height in zip(optimizer.param_groups, heights, strict=True):
        _set_momentum(group, high - height * (high - low))


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    elif group.get("momentum"):
        group["momentum"] = momentum
