"""Checks of the numbers that configure a part."""

from __future__ import annotations

import math
from typing import Any

from truerisk.core.errors import ConfigError


def check_float(
    key: str, value: Any, low: float = 0.0, high: float = math.inf, *, above: bool = False
) -> float:
    """Return ``value`` if it is a number in [low, high], or in (low, high] with ``above``.

    Raises:
        ConfigError: it is not.

    >>> check_float("regularizer.dropout.p", 0.5, 0, 1)
    0.5
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value if above else low <= value) or not value <= high:
        raise ConfigError(f"{key} must be a number{_range(low, high, above)}, not {value!r}")
    return value


def _range(low: float, high: float, above: bool) -> str:
    bounds = [f"greater than {low:g}" if above else f"at least {low:g}"] if low > -math.inf else []
    bounds += [f"at most {high:g}"] if high < math.inf else []
    return " " + " and ".join(bounds) if bounds else ""


def check_int(key: str, value: Any, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``.

    Raises:
        ConfigError: it is not.

    >>> check_int("regularizer.early_stopping.patience", 20)
    20
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key} must be a whole number of at least {least}, not {value!r}")
    return value
