"""A reproduction's figure, for print and for a dark screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.show.style import SERIES_COLORS, THEMES

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INCHES = (7.2, 4.8)
SIZE = 13.0
"""Points of the text: a figure of the gallery is shown smaller than a run's."""


def save_themes(
    draw_figure: Callable[[Figure], None], folder: Path, name: str = "figure"
) -> list[Path]:
    """Write ``name`` and ``name-dark`` as SVG and PNG.

    Args:
        draw_figure: fills an empty figure. Colors come from the style: ``C0`` … ``C4`` for series,
            and matplotlib's own for the rest.
        folder: where the files lie.
        name: theirs, without an ending.

    Returns:
        Their paths: SVG, PNG, and both for a dark screen.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for theme, stem in (("light", name), ("dark", f"{name}-dark")):
        with rc_context(theme_parameters(theme)):
            figure = Figure(figsize=INCHES, layout="constrained")
            # a canvas of its own: pyplot would choose one by the screen, and keep the figure
            FigureCanvasAgg(figure)
            # drawn anew for each theme, as colors are chosen when a line is made
            draw_figure(figure)
            for ending in ("svg", "png"):
                path = folder / f"{stem}.{ending}"
                figure.savefig(path, dpi=160)
                written.append(path)
    return written


def theme_parameters(theme: str) -> Any:
    """Return matplotlib's parameters for a theme, by name."""
    from cycler import cycler

    colors = THEMES[theme]
    ink = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    faint = ("axes.edgecolor", "xtick.color", "ytick.color")
    ground = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(ink, colors["ink"]),
        **dict.fromkeys(faint, colors["faint"]),
        **dict.fromkeys(ground, colors["ground"]),
        "axes.prop_cycle": cycler(color=SERIES_COLORS[theme]),
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
        "svg.hashsalt": "truerisk",  # without it, ids in the file differ from run to run
        "svg.fonttype": "path",
    }


def set_decimal_ticks(axis: Axis) -> None:
    """Write plain numbers, 1, 2, 5, 10, … on a logarithmic axis of few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    # matplotlib writes 10⁰ and 10¹ alone, which says little over one decade
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
