"""How figures, pages and numbers look: colors, dashes, sizes, and digits."""

from __future__ import annotations

import math
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


def leading_power(value: float) -> int:
    """Find the power of ten of a number's first digit.

    >>> leading_power(0.0123), leading_power(-250.0)
    (-2, 2)
    """
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def format_fixed(value: float, last: int) -> str:
    """Round a number to the power of ten ``last``.

    Args:
        value: any number; one that is not finite is written as it is.
        last: -3 for thousandths, 1 for tens.

    >>> format_fixed(0.12345, -3), format_fixed(1234.5, 1)
    ('0.123', '1230')
    """
    if not math.isfinite(value):
        return f"{value:g}"
    return f"{round(value, -last):.{max(0, -last)}f}"


def format_significant(value: float, digits: int = 4) -> str:
    """Write a number with a few significant digits, in powers of ten only where that is shorter.

    Args:
        value: any number.
        digits: how many.

    >>> [format_significant(value) for value in (0.123456, 2.0, 1e-9, float("nan"))]
    ['0.1235', '2.000', '1.000e-09', 'nan']
    """
    # 0.00001234 and 12345678 are as long as their powers of ten
    if value and math.isfinite(value) and not -5 < leading_power(value) < 6:
        return f"{value:.{digits - 1}e}"
    return format_fixed(value, min(0, leading_power(value) - digits + 1))


def format_bounds(value: float, low: float, high: float) -> str:
    """Write a number and its interval, rounded to two significant digits of the interval's width.

    Args:
        value: any number.
        low: the interval's lower end.
        high: its upper end.

    >>> format_bounds(2.5, 0.44, 12.88), format_bounds(18.25, 16.9, 19.6)
    ('2 [0, 13]', '18.2 [16.9, 19.6]')
    >>> format_bounds(3.2e-9, 2.9e-9, 3.5e-9)
    '(3.20 [2.90, 3.50])e-09'
    """
    if high == low:
        return format_significant(value)
    scale = leading_power(max(abs(low), abs(high)))
    if not -5 < scale < 6:
        unit = 10.0**scale
        return f"({format_bounds(value / unit, low / unit, high / unit)})e{scale:+03d}"
    last = leading_power(float(f"{high - low:.1e}")) - 1
    first, *ends = (format_fixed(number, last) for number in (value, low, high))
    return f"{first} [{', '.join(ends)}]"


def format_with_stderr(value: float, stderr: float | None) -> str:
    """Write a number and its standard error, rounded to two significant digits of the latter.

    Args:
        value: any number.
        stderr: its standard error: 0 where nothing was left to chance, None where there is none.

    >>> format_with_stderr(0.52341, 0.00816), format_with_stderr(1234.5, 56.7)
    ('0.5234 ± 0.0082', '1234 ± 57')
    >>> format_with_stderr(0.52341, 0.0), format_with_stderr(0.52341, None)
    ('0.5234 exact', '0.5234')
    >>> format_with_stderr(3.2e-9, 1.4e-10)
    '(3.20 ± 0.14)e-09'
    """
    if stderr is None or not math.isfinite(value):
        return format_significant(value)
    if stderr == 0:
        return f"{format_significant(value)} exact"
    if not math.isfinite(stderr):
        return f"{format_significant(value)} ± {stderr:g}"
    # where the error is greater than the number, its digits decide
    scale = leading_power(max(abs(value), stderr))
    if not -5 < scale < 6:
        return f"({format_with_stderr(value / 10.0**scale, stderr / 10.0**scale)})e{scale:+03d}"
    # rounding may carry: 0.0996 has its two digits at 0.10
    last = leading_power(float(f"{stderr:.1e}")) - 1
    return f"{format_fixed(value, last)} ± {format_fixed(stderr, last)}"
