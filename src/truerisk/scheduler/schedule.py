"""The learning rate of every optimizer step of a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
)

from truerisk.core.errors import ConfigError, read_message, suggest

LENGTHS = (
    "T_max",
    "T_0",
    "total_iters",
    "total_steps",
    "step_size",
    "step_size_up",
    "step_size_down",
    "milestones",
)
"""Arguments of torch's schedulers that are lengths, or lists of them."""


class Plateau(ReduceLROnPlateau):
    """lr ← factor · lr once the risk has not fallen by its margin for ``patience`` epochs.

    A risk r is lower than the best b where ``r < b − threshold · |b|`` (``rel``) or
    ``r < b − threshold`` (``abs``). torch's own class, whose shape and arguments these are,
    multiplies b by ``1 − threshold``, which lies above b where b is negative: there a risk that
    stands still, or rises a little, counts as one that falls.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = Plateau(optimizer, patience=1)
    >>> for _ in range(4):
    ...     schedule.step(-78.33)
    >>> schedule.get_last_lr()
    [0.1]
    """

    def is_better(self, risk: float, best: float) -> bool:
        """Tell whether a risk has fallen, or risen in mode ``max``, by more than the margin.

        Args:
            risk: of an epoch.
            best: the best one so far; infinite before the first.
        """
        margin = self.threshold
        if self.threshold_mode == "abs":
            return risk > best + margin if self.mode == "max" else risk < best - margin
        # |best|: the product, not best − margin · |best|, so that it rounds as torch's does
        up = best >= 0
        if self.mode == "max":
            return risk > best * (1.0 + margin if up else 1.0 - margin)
        return risk < best * (1.0 - margin if up else 1.0 + margin)

    _is_better = is_better  # its name from torch 2.11 on


class Schedule:
    """Linear warmup over W steps, then a scheduler of torch's kind for the rest of the run.

    Step t (from 0) of the run uses

        lrₜ = (t + 1)/W · s₀   for t < W,
        lrₜ = s₍t − W₎          for t ≥ W,

    where s₀, s₁, … are the learning rates of the scheduler, group by group. Its lengths are
    optimizer steps (int) or shares (float in (0, 1]) of the run after warmup; ``warmup`` is steps
    or a share of the whole run. Arguments of torch's schedulers that are lengths are known by name
    (``truerisk.scheduler.schedule.LENGTHS``); another class lists its own in ``lengths``.

    A cosine does not rise again after ``T_max``, and one cycle stays at its end, though torch's
    classes go on or raise. ``ReduceLROnPlateau`` moves with ``step_epoch`` instead of ``step``,
    from the end of the warmup on, and waits for margins of |best| (`Plateau`). A ``T_0`` that is a
    share is rounded up, so that descents of a quarter of the run each are never followed by the
    beginning of a fifth.

    Build it before the optimizer's state is restored: schedulers read the optimizer's own learning
    rates as they are built.

    Args:
        target: a scheduler class, called with the optimizer and the options.
        options: the class's arguments.
        optimizer: whose ``param_groups`` are scheduled.
        horizon: optimizer steps in the whole run.
        warmup: length of the warmup; 0 for none.

    Attributes:
        notices: sentences on what the run is too short for.
        lengths: the scheduler's options, lengths in optimizer steps.

    Raises:
        ConfigError: an option the scheduler does not have, a length that is none, numbers that
            the scheduler refuses, or an optimizer without learning rates.

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
        self.warmup, self._last = 0, 0.0
        self._by_epoch = False
        self.target: LRScheduler | None = None
        self.notices: list[str] = []
        self.lengths: dict[str, Any] = {}
        if not all("lr" in group for group in optimizer.param_groups):
            _refuse_schedule(target, optimizer, warmup)
            return
        if not any(group["lr"] for group in optimizer.param_groups):
            self.notices = ["optimizer.lr is 0: no weight will move"]
        if warmup != 0:
            self.warmup = count_steps(warmup, horizon, "scheduler.warmup")
        left = max(1, horizon - self.warmup)
        if target is ReduceLROnPlateau:  # as configurations name it
            target = Plateau
        self.lengths = resolved = _resolve_options(target, options, left)
        self.target = _build_scheduler(target, resolved, optimizer)
        self.notices += [
            *_find_cut_warmup(self.warmup, horizon),
            *_find_unreached(resolved, left),
            *_find_cut_descent(self.target, left),
            *_find_shorter_decay(warmup, options),
        ]
        # a loss scaler may skip the first optimizer step, and torch would warn of a wrong order
        optimizer._opt_called = True  # type: ignore[attr-defined]
        self._by_epoch = isinstance(self.target, ReduceLROnPlateau)
        if not self._by_epoch:
            self._last = _last_index(self.target)
        # building the scheduler has set its first rates, s₀
        self._first = [group["lr"] for group in optimizer.param_groups]
        if self.warmup:
            self._scale_rates(1 / self.warmup)

    def step(self) -> None:
        """Set the rates of the next optimizer step; call it after every one."""
        self.count += 1
        if self.count <= self.warmup:
            self._scale_rates(min(1.0, (self.count + 1) / self.warmup))
        elif self.target is not None and self.count - self.warmup <= self._last:
            self.target.step()

    def step_epoch(self, risk: float) -> None:
        """Show the validation risk of a measured epoch to a scheduler that waits for plateaus."""
        if self.target is not None and self._by_epoch and self.count >= self.warmup:
            self.target.step(risk)  # type: ignore[arg-type]

    def _scale_rates(self, factor: float) -> None:
        for group, first in zip(self.optimizer.param_groups, self._first, strict=True):
            group["lr"] = first * factor

    def state_dict(self) -> dict[str, Any]:
        """Return what a bit-exact continuation needs besides the optimizer's state."""
        target = {} if self.target is None else self.target.state_dict()
        return {
            "count": self.count,
            "lr": [group["lr"] for group in self.optimizer.param_groups if "lr" in group],
            # a class may keep functions or objects, which loading with `weights_only` refuses
            "target": {k: v for k, v in target.items() if _is_plain(v)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.count = state["count"]
        if self.target is not None:
            # what was not plain enough to be stored stays as it was built
            self.target.load_state_dict({**self.target.state_dict(), **state["target"]})
        rated = [group for group in self.optimizer.param_groups if "lr" in group]
        for group, lr in zip(rated, state["lr"], strict=True):
            group["lr"] = lr


def _resolve_options(
    target: Callable[..., Any], options: Mapping[str, Any], whole: int
) -> dict[str, Any]:
    """Convert the options that are lengths to optimizer steps."""
    lengths = (*LENGTHS, *getattr(target, "lengths", ()))
    resolved = dict(options)
    for key, value in options.items():
        if key in lengths:
            resolved[key] = resolve_lengths(value, whole, f"scheduler.{key}")
            # rounded down, k descents of 1/k of the run would leave it a step at the full rate
            if key == "T_0" and isinstance(value, float):
                resolved[key] = max(1, math.ceil(value * whole - 1e-6))
    return resolved


def _find_cut_warmup(warmup: int, horizon: int) -> Iterator[str]:
    """Say where a run ends before its warmup does."""
    if warmup > horizon:
        yield (
            f"scheduler.warmup: the run's {horizon} steps end before the {warmup} of the warmup, "
            f"at {horizon / warmup:.2g} of the full step length"
        )


def _find_unreached(resolved: Mapping[str, Any], left: int) -> Iterator[str]:
    """Say which lengths, in steps, end after the ``left`` ones that follow the warmup."""
    after = f"the {left} steps of the run after its warmup"
    drops = resolved.get("milestones") or []
    if late := [drop for drop in drops if drop >= left]:
        yield f"scheduler.milestones: {late} lie beyond {after}, so nothing drops there"
    if resolved.get("step_size", 0) >= left:
        yield (
            f"scheduler.step_size: {resolved['step_size']} steps are no fewer than {after}, so the "
            "step length never drops"
        )
    for key in LENGTHS:
        length = resolved.get(key)
        if isinstance(length, int) and length > left and key != "step_size":
            yield f"scheduler.{key}: {length} steps are more than {after}, which cut them short"


def _find_cut_descent(scheduler: LRScheduler, left: int) -> Iterator[str]:
    """Say where a run ends in the first half of a descent that has begun anew."""
    if not isinstance(scheduler, CosineAnnealingWarmRestarts):
        return
    start, length = 0, scheduler.T_0
    while start + length < left:
        start, length = start + length, length * scheduler.T_mult
    if start and 2 * (left - start) < length:
        yield (
            f"scheduler.T_0: the last descent has {left - start} of its {length} steps, so the run "
            "ends near the full step length"
        )


def _find_shorter_decay(warmup: int | float, options: Mapping[str, Any]) -> Iterator[str]:
    """Say how long a decay is whose share and the warmup's are more than the whole."""
    decay = options.get("decay")
    if isinstance(warmup, float) and isinstance(decay, float) and warmup + decay > 1:
        yield (
            f"scheduler.decay: {decay:g} is a share of what the warmup leaves, so the decay takes "
            f"{decay * (1 - warmup):.2g} of the run"
        )


def _build_scheduler(
    target: Callable[..., LRScheduler], options: dict[str, Any], optimizer: Optimizer
) -> LRScheduler:
    """Build a scheduler, with the nearest name for an option that it does not have."""
    parameters = inspect.signature(target).parameters
    # a class with **kwargs may know more keys than its signature shows
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = sorted(set(parameters) - {"optimizer", "last_epoch"})
    for key in options:
        if key not in names and not open_ended:
            raise ConfigError(f"scheduler.{key} is not known; {suggest(key, names)}")
    try:
        return target(optimizer, **options)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        name = getattr(target, "__name__", target)
        said = read_message(error)
        raise ConfigError(f"scheduler: {name} does not take {options}: {said}") from error


def _refuse_schedule(target: Callable[..., Any], optimizer: Optimizer, warmup: float) -> None:
    """Refuse to schedule learning rates that an optimizer does not have (a Polyak step's)."""
    if warmup or getattr(target, "last_index", None) != 0:
        raise ConfigError(
            f"{type(optimizer).__name__} has no learning rate for a schedule to move: set "
            "scheduler=constant and scheduler.warmup=0"
        )


def _last_index(scheduler: LRScheduler) -> float:
    """Return the index after which a scheduler's learning rate stays as it is."""
    # torch's cosine rises again after T_max, and its one cycle raises after the last step
    if isinstance(scheduler, CosineAnnealingLR):
        return scheduler.T_max
    if isinstance(scheduler, OneCycleLR):
        return scheduler.total_steps - 1
    return getattr(scheduler, "last_index", math.inf)


def _is_plain(value: Any) -> bool:
    """Decide whether a value is made of numbers and words only, as safe loading wants it."""
    if isinstance(value, dict):
        return type(value) is dict and all(_is_plain(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)


def count_steps(length: int | float, whole: int, key: str) -> int:
    """Convert a length to optimizer steps.

    Args:
        length: an int counts steps, a float in (0, 1] is a share of ``whole``.
        whole: optimizer steps that a share of 1.0 stands for.
        key: the config key, for the message.

    Returns:
        The length in optimizer steps, at least 1.

    Raises:
        ConfigError: the length is neither.

    >>> [count_steps(length, 200, "scheduler.T_max") for length in (30, 0.25, 1.0)]
    [30, 50, 200]
    """
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise ConfigError(f"{key} is {length!r}; it must be a number")
    if isinstance(length, int) and length >= 1:
        return length
    # 1 is a step, and 1.0 the whole: YAML keeps them apart
    if isinstance(length, float) and 0 < length <= 1:
        return max(1, round(length * whole))
    raise ConfigError(
        f"{key} is {length!r}; give a whole number of optimizer steps (100), or a share of the run "
        "as a decimal in (0, 1] (0.1, or 1.0 for all of it)"
    )


def resolve_lengths(value: Any, whole: int, key: str) -> Any:
    """Convert a length, or each entry of a list, to optimizer steps; None stays None.

    Args:
        value: a length as `count_steps` takes it, a list of them, or None.
        whole: optimizer steps that a share of 1.0 stands for.
        key: the config key, for the message.

    Returns:
        An int, a list of ints, or None.

    Raises:
        ConfigError: an entry is no length.

    >>> resolve_lengths([0.5, 90], 100, "scheduler.milestones")
    [50, 90]
    """
    if value is None:
        return None
    if isinstance(value, int | float | str):
        return count_steps(value, whole, key)  # type: ignore[arg-type]
    return [count_steps(entry, whole, key) for entry in value]
