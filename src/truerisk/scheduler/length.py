"""Lengths as optimizer steps or as shares of a run."""

from __future__ import annotations

from typing import Any

from truerisk.core.errors import ConfigError

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


def steps(length: int | float, whole: int, key: str) -> int:
    """A length in optimizer steps: an int counts steps, a float in (0, 1] is a share of ``whole``.

    Args:
        length: the length.
        whole: optimizer steps that a share of 1.0 stands for.
        key: the config key, for the message.

    Raises:
        ConfigError: the length is neither.

    >>> steps(30, 200, "T_max"), steps(0.25, 200, "T_max"), steps(1.0, 200, "T_max")
    (30, 50, 200)
    """
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise ConfigError(f"{key} is {length!r}; it must be a number")
    if isinstance(length, int) and length >= 1:
        return length
    if isinstance(length, float) and 0 < length <= 1:
        return max(1, round(length * whole))
    raise ConfigError(
        f"{key} is {length!r}; give a whole number of optimizer steps (100), or a share of the run "
        "as a decimal in (0, 1] (0.1, or 1.0 for all of it)"
    )


def resolved(key: str, value: Any, whole: int) -> Any:
    """The same, for each entry of a list too; None stays None.

    >>> resolved("scheduler.milestones", [0.5, 90], 100)
    [50, 90]
    """
    if value is None:
        return None
    if isinstance(value, int | float | str):
        return steps(value, whole, key)  # type: ignore[arg-type]
    return [steps(entry, whole, key) for entry in value]
