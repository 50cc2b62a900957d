"""Colors, dashes and sizes of every figure and page: the one place to change how they look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLUE, RUST, GREEN, PLUM, ORANGE = "#0b4f8a", "#c2570c", "#1f7a4d", "#8a1c5c", "#e08a1e"
INK, FAINT, RULE, PAPER = "#222222", "#8a8a8a", "#dddddd", "white"
"""Text and axes, what stands back, lines across a panel, and the ground."""

INCHES = (7.0, 6.4)
"""Width and height of a figure."""
SIZE = 15.0
"""Points of the text."""

LINE_COLORS = (BLUE, RUST, GREEN, PLUM, "#4a3a9c", "#7a5c00", INK, "#a61c1c")
DARK_LINE_COLORS = (
    *("#6cb2f5", "#f5a05c", "#6fce9c", "#ee8fc4"),
    *("#a99cf5", "#dfc25a", "#d8d8d8", "#f58b8b"),
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MOST_LINES = len(LINE_COLORS)
"""Lines that can be told apart in one figure."""

MAP_SHADES, MAP_LINES = ["#c9d3df", "#fafafa"], "#8793a3"
"""Of a test function, from low to high, and its contour lines."""
LANDSCAPE_SHADES, LANDSCAPE_LINES = ["#b9c6d6", "#fafafa"], "#5c6878"
"""Of the objective around the weights."""

RISK_STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": ORANGE, "linestyle": (0, (4, 1.6)), "linewidth": 2.6},
    "val": {"color": BLUE, "linestyle": "-", "linewidth": 2.8},
}

THEMES: dict[str, dict[str, str]] = {
    "light": {"ink": INK, "faint": FAINT, "grid": RULE, "ground": PAPER},
    "dark": {"ink": "#e8e8e8", "faint": "#9a9a9a", "grid": "#3a3a3a", "ground": "#16181d"},
}
"""Of a reproduction's figure, which is drawn for paper and for a dark screen."""
SERIES_COLORS = {
    "light": [BLUE, "#c9601a", "#2e7d4f", "#8e3b8a", "#7a6a00"],
    "dark": ["#6fb3f2", "#f2a55f", "#7fd0a0", "#d98fd6", "#d8c65a"],
}
"""Five colors that differ in grey too, in their order."""

GALLERY_COLORS: dict[str, dict[str, str]] = {
    "light": {
        # small text needs more contrast than an axis: 4.5 to 1 on white
        **{"ink": INK, "ground": "#ffffff", "faint": "#777777", "line": RULE},
        **{"holds": "#2e7d4f", "fails": "#c0392b", "open": "#b07d00"},
    },
    "dark": {
        **{"ink": "#e8e8e8", "ground": "#16181d", "faint": "#9a9a9a", "line": "#3a3a3a"},
        **{"holds": "#7fd0a0", "fails": "#ff8a7a", "open": "#b07d00"},
    },
}
REPORT_COLORS: dict[str, dict[str, str]] = {
    "light": {
        **{"paper": "#ffffff", "ink": "#1d1f23", "faint": "#62666e", "line": "#d5d8dd"},
        **{"shade": "#f2f4f7", "good": GREEN},
        **{f"c{i}": color for i, color in enumerate(LINE_COLORS)},
    },
    "dark": {
        **{"paper": "#15171b", "ink": "#e8eaee", "faint": "#a2a8b3", "line": "#3a3f48"},
        **{"shade": "#20242b", "good": "#6fce9c"},
        **{f"c{i}": color for i, color in enumerate(DARK_LINE_COLORS)},
    },
}


def line_style(i: int) -> dict[str, Any]:
    """Choose the color and dashes of the i-th line of a figure.

    The dashes alone tell neighbours apart, on paper without color or by an eye that sees none.
    """
    return {"color": LINE_COLORS[i % MOST_LINES], "linestyle": DASHES[i % len(DASHES)]}


def write_css_colors(themes: Mapping[str, Mapping[str, str]]) -> str:
    """Write a page's colors as CSS variables, the dark ones for readers who prefer them.

    >>> print(write_css_colors({"light": {"ink": "#222"}, "dark": {"ink": "#eee"}}))
    :root { --ink: #222 }
    @media (prefers-color-scheme: dark) { :root { --ink: #eee } }
    """
    light, dark = (
        "; ".join(f"--{name}: {color}" for name, color in themes[theme].items())
        for theme in ("light", "dark")
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
