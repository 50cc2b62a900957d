"""Checks of the numbers that size a model."""

from __future__ import annotations

from typing import Any

from truerisk.errors import ConfigError


def whole(key: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an int.

    Raises:
        ConfigError: it is not a whole number of at least ``least``.

    >>> whole("model.width", 100)
    100
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key} must be a whole number of at least {least}, not {value!r}")
    return value
