"""The learning rate of every optimizer step of a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from truerisk.core.errors import ConfigError, suggest
from truerisk.scheduler.length import LENGTHS, resolved, steps


class Schedule:
    """Linear warmup over W steps, then a scheduler of torch's kind for the rest of the run.

    Step t (from 0) of the run uses

        lrₜ = (t + 1)/W · s₀   for t < W,
        lrₜ = s₍t − W₎          for t ≥ W,

    where s₀, s₁, … are the learning rates of the scheduler, group by group. Its lengths are
    optimizer steps (int) or shares (float in (0, 1]) of the run after warmup; ``warmup`` is steps
    or a share of the whole run. Arguments of torch's schedulers that are lengths are known by name
    (``truerisk.scheduler.length.LENGTHS``); another class lists its own in ``lengths``.

    A cosine does not rise again after ``T_max``, and one cycle stays at its end, though torch's
    classes go on or raise. ``ReduceLROnPlateau`` moves with ``epoch`` instead of ``step``, from the
    end of the warmup on.

    Build it before the optimizer's state is restored: schedulers read the optimizer's own learning
    rates as they are built.

    Args:
        target: a scheduler class, called with the optimizer and the options.
        options: the class's arguments.
        optimizer: whose ``param_groups`` are scheduled.
        horizon: optimizer steps in the whole run.
        warmup: length of the warmup; 0 for none.

    Raises:
        ConfigError: an option the scheduler does not have, a length that is none, or numbers that
            the scheduler refuses.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = Schedule(CosineAnnealingLR, {"T_max": 1.0}, optimizer, horizon=6, warmup=2)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     schedule.step()
    >>> rates
    [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464]
    """

    def __init__(
        self,
        target: Callable[..., LRScheduler],
        options: Mapping[str, Any],
        optimizer: Optimizer,
        horizon: int,
        warmup: int | float = 0,
    ) -> None:
        self.optimizer, self.horizon, self.count = optimizer, horizon, 0
        self.warmup = steps(warmup, horizon, "scheduler.warmup") if warmup != 0 else 0
        left = max(1, horizon - self.warmup)
        self.target = _build(target, _resolved(target, options, left), optimizer)
        # A loss scaler may skip the first optimizer step; torch would warn of a wrong order.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        self._by_epoch = isinstance(self.target, ReduceLROnPlateau)
        self._last = 0 if self._by_epoch else _last_index(self.target)
        self._first = [group["lr"] for group in optimizer.param_groups]
        if self.warmup:
            self._scale(1 / self.warmup)

    def step(self) -> None:
        """Go on to the next optimizer step; call it after every one."""
        self.count += 1
        if self.count <= self.warmup:
            self._scale(min(1.0, (self.count + 1) / self.warmup))
        elif self.count - self.warmup <= self._last:
            self.target.step()

    def epoch(self, risk: float) -> None:
        """Take in the validation risk of a measured epoch."""
        if self._by_epoch and self.count >= self.warmup:
            self.target.step(risk)  # type: ignore[arg-type]

    def _scale(self, factor: float) -> None:
        for group, first in zip(self.optimizer.param_groups, self._first, strict=True):
            group["lr"] = first * factor

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs besides the optimizer's state."""
        return {
            "count": self.count,
            "lr": [group["lr"] for group in self.optimizer.param_groups],
            "target": {k: v for k, v in self.target.state_dict().items() if _is_plain(v)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
        self.count = state["count"]
        self.target.load_state_dict({**self.target.state_dict(), **state["target"]})
        for group, lr in zip(self.optimizer.param_groups, state["lr"], strict=True):
            group["lr"] = lr


def _resolved(target: Callable[..., Any], options: Mapping[str, Any], left: int) -> dict[str, Any]:
    """The options with lengths in optimizer steps."""
    lengths = (*LENGTHS, *getattr(target, "lengths", ()))
    return {
        key: resolved(f"scheduler.{key}", value, left) if key in lengths else value
        for key, value in options.items()
    }


def _build(
    target: Callable[..., LRScheduler], options: dict[str, Any], optimizer: Optimizer
) -> LRScheduler:
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = sorted(set(parameters) - {"optimizer", "last_epoch"})
    for key in options:
        if key not in known and not open_ended:
            raise ConfigError(f"scheduler.{key} is not known; {suggest(key, known)}")
    try:
        return target(optimizer, **options)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        name = getattr(target, "__name__", target)
        raise ConfigError(f"scheduler: {name} does not take {options}: {error}") from error


def _last_index(scheduler: LRScheduler) -> float:
    """The index after which a scheduler's learning rate stays as it is."""
    if isinstance(scheduler, CosineAnnealingLR):
        return scheduler.T_max
    if isinstance(scheduler, OneCycleLR):
        return scheduler.total_steps - 1
    return getattr(scheduler, "last_index", math.inf)


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers and words only, so that safe loading takes it."""
    if isinstance(value, dict):
        return type(value) is dict and all(_is_plain(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)
