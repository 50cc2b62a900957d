"""A reproduction's figure, for print and for a dark screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INCHES = (7.2, 4.8)
SIZE = 13.0
THEMES: dict[str, dict[str, str]] = {
    "light": {"ink": "#222222", "faint": "#8a8a8a", "grid": "#dddddd", "ground": "white"},
    "dark": {"ink": "#e8e8e8", "faint": "#9a9a9a", "grid": "#3a3a3a", "ground": "#16181d"},
}
COLORS = {
    "light": ["#0b4f8a", "#c9601a", "#2e7d4f", "#8e3b8a", "#7a6a00"],
    "dark": ["#6fb3f2", "#f2a55f", "#7fd0a0", "#d98fd6", "#d8c65a"],
}
"""Five colours that differ in grey too, in their order."""


def draw(paint: Callable[[Figure], None], folder: Path, name: str = "figure") -> list[Path]:
    """Write ``name`` and ``name-dark`` as SVG and PNG; ``paint`` fills an empty figure.

    Colours come from the style: ``C0`` … ``C4`` for series, and matplotlib's own for the rest.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for theme in THEMES:
        with rc_context(style(theme)):
            figure = Figure(figsize=INCHES, layout="constrained")
            FigureCanvasAgg(figure)
            paint(figure)
            suffix = "" if theme == "light" else f"-{theme}"
            for ending in ("svg", "png"):
                path = folder / f"{name}{suffix}.{ending}"
                figure.savefig(path, dpi=160)
                written.append(path)
    return written


def sheet(pictures: Sequence[Path], path: Path, columns: int = 4) -> None:
    """Write one PNG of several, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(2.4 * columns, 1.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, picture in zip(figure.axes, pictures, strict=False):
        axes.imshow(imread(picture), interpolation="antialiased")
    figure.savefig(path, dpi=110)


def style(theme: str) -> Any:
    """Matplotlib's parameters for a theme, by name."""
    from cycler import cycler

    colors = THEMES[theme]
    ink = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    faint = ("axes.edgecolor", "xtick.color", "ytick.color")
    ground = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(ink, colors["ink"]),
        **dict.fromkeys(faint, colors["faint"]),
        **dict.fromkeys(ground, colors["ground"]),
        "axes.prop_cycle": cycler(color=COLORS[theme]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titlesize": SIZE,
        "axes.labelsize": SIZE,
        "grid.color": colors["grid"],
        "font.size": SIZE,
        "lines.linewidth": 2.4,
        "svg.hashsalt": "truerisk",
        "svg.fonttype": "path",
    }


def decimal(axis: Axis) -> None:
    """Plain numbers, 1, 2, 5, 10, … on a logarithmic axis of few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
