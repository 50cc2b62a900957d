"""Checks of an initializer's numbers."""

from __future__ import annotations

from typing import Any

from truerisk.errors import ConfigError


def number(key: str, value: Any, above: float = float("-inf")) -> float:
    """Return ``value``, a number greater than ``above``.

    Raises:
        ConfigError: it is not.

    >>> number("initializer.gain", 2)
    2
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > above:
        bound = "" if above == float("-inf") else f" above {above:g}"
        raise ConfigError(f"{key} must be a number{bound}, not {value!r}")
    return value
