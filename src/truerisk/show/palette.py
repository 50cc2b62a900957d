"""Lines that can be told apart, with and without their color."""

from __future__ import annotations

from typing import Any

COLORS = ("#0b4f8a", "#c2570c", "#1f7a4d", "#8a1c5c", "#4a3a9c", "#7a5c00", "#222222", "#a61c1c")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MOST = len(COLORS)
"""Lines that can be told apart in one figure."""


def style(i: int) -> dict[str, Any]:
    """The color and dashes of one of several lines, which differ without their color, too."""
    return {"color": COLORS[i % MOST], "linestyle": DASHES[i % len(DASHES)]}
