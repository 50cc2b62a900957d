"""Checks of the numbers that configure a part."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from truerisk.core.errors import ConfigError


def check_float(
    key: str, value: Any, low: float = 0.0, high: float = math.inf, *, above: bool = False
) -> float:
    """Return a value if it is a number in [low, high], or in (low, high] with ``above``.

    Args:
        key: the config key, for the message.
        value: what to check; a bool is no number.
        low: the least value.
        high: the largest value.
        above: whether ``low`` itself is excluded.

    Raises:
        ConfigError: it is not.

    >>> check_float("regularizer.dropout.p", 0.5, 0, 1)
    0.5
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # written with `not`, so that NaN is refused
    if not number or not low <= value <= high or (above and value == low):
        raise ConfigError(
            f"{key} must be a number{_describe_range(low, high, above)}, not {value!r}"
        )
    return value


def _describe_range(low: float, high: float, above: bool) -> str:
    bounds = []
    if low > -math.inf:
        bounds.append(f" greater than {low:g}" if above else f" at least {low:g}")
    if high < math.inf:
        bounds.append(f" at most {high:g}")
    return " and".join(bounds)


def check_int(key: str, value: Any, least: int = 1) -> int:
    """Return a value if it is a whole number of at least ``least``.

    Args:
        key: the config key, for the message.
        value: what to check; a bool is no number.
        least: the least value.

    Raises:
        ConfigError: it is not.

    >>> check_int("regularizer.early_stopping.patience", 20)
    20
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key} must be a whole number of at least {least}, not {value!r}")
    return value


def find_empty(node: Any, key: str) -> Iterator[str]:
    """Find the keys whose text is empty, as one of a shell's variable is that was not set.

    Args:
        node: plain containers.
        key: where it stands.

    >>> list(find_empty({"path": "", "job": {"account": " ", "nodes": 1}}, "hydra.launcher"))
    ['hydra.launcher.path', 'hydra.launcher.job.account']
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from find_empty(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, str) and not node.strip():
        yield key


def parse_duration(key: str, value: Any) -> float:
    """Return the seconds of ``DD:HH:MM:SS``, or of numbers by unit; infinite where it is None.

    Args:
        key: the config key, for the message.
        value: what to read.

    Raises:
        ConfigError: it is no duration.

    >>> parse_duration("trainer.max_time", "00:01:00:05")
    3605.0
    >>> parse_duration("trainer.max_time", {"minutes": 5})
    300.0
    """
    if value is None:
        return math.inf
    parts: Any = value
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip())
        units = ("days", "hours", "minutes", "seconds")
        parts = match and dict(zip(units, map(int, match.groups()), strict=True))
    try:
        return timedelta(**parts).total_seconds()
    except TypeError as error:  # nothing that has units, or units that there are not
        raise ConfigError(f"{key} must be DD:HH:MM:SS, not {value!r}") from error
