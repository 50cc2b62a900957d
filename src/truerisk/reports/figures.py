"""Charts as image files: SVG and PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.core.files import replacing
from truerisk.reports.chart import Chart, Heat, Line
from truerisk.show.panel import frame_axes, label_ends, new_figure, set_plain_ticks
from truerisk.show.style import DASHES, INK, LINE_COLORS, SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

FORMATS = ("svg", "png")
BESIDE = 24
"""Letters of a name that fit beside the lines' ends; longer ones go below, in lines of BELOW."""
BELOW = 55


def save(charts: Iterable[Chart | Heat], folder: Path) -> list[Path]:
    """Draw each chart into ``folder/KEY.svg`` and ``folder/KEY.png``; returns their paths."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        for chart in charts:
            figure = draw_heat(chart) if isinstance(chart, Heat) else draw_chart(chart)
            for kind in FORMATS:
                path = folder / f"{chart.key}.{kind}"
                with replacing(path) as part:
                    figure.savefig(part, format=kind)
                written.append(path)
    return written


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = new_figure(title, dpi=110, layout="constrained")
    return figure, figure.subplots()


def draw_chart(chart: Chart) -> Figure:
    """Lines with bands, and their names at their ends."""
    figure, axes = _figure(chart.title)
    axes.set_yscale("log" if chart.log_y else "linear")
    axes.set_xscale("log" if chart.log_x else "linear")
    for line in chart.lines:
        draw_line(axes, line, chart.log_y)
    axes.set_xlabel(chart.x, fontsize=SIZE, color=INK)
    frame_axes(axes, chart.y)
    limit(axes, chart)
    name_lines(axes, ends(chart.lines))
    if not chart.log_x and all(float(x).is_integer() for line in chart.lines for x in line.x):
        axes.locator_params(axis="x", integer=True)
    set_plain_ticks(axes)
    return figure


def draw_line(axes: Axes, line: Line, log: bool) -> None:
    """A line; thin and dashed where it is the second of its color."""
    color = LINE_COLORS[line.color % len(LINE_COLORS)]
    x, y = np.array(line.x, dtype=float), np.array(line.y, dtype=float)
    axes.plot(
        x, y, color=color, zorder=3, linestyle=_stroke(line),
        linewidth=1.8 if line.dashed else 2.6,
        marker="o" if line.dots or (len(x) < 12 and not line.steps) else "None", markersize=6,
        drawstyle="steps-post" if line.steps else "default",
    )  # fmt: skip
    if len(line.low) and not line.dashed:
        low, high = np.array(line.low, dtype=float), np.array(line.high, dtype=float)
        low = np.where(low > 0, low, y / 10) if log else low
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def name_lines(axes: Axes, named: list[tuple[float, str, str]]) -> None:
    """Write names in their lines' colors: at the lines' ends, or below where they are long."""
    if all(len(name) <= BESIDE for _, name, _ in named):
        label_ends(axes, named)
        return
    figure: Any = axes.figure
    drawn = [axes.plot([], [], color=color, linewidth=2.6)[0] for _, _, color in named]
    texts = [textwrap.fill(name, BELOW) for _, name, _ in named]
    figure.legend(
        drawn, texts, loc="outside lower left", labelcolor="linecolor", frameon=False, fontsize=SIZE
    )


def _stroke(line: Line) -> Any:
    if line.dots:
        return ""
    return DASHES[1] if line.dashed else "-"


def limit(axes: Axes, chart: Chart) -> None:
    """Show all lines; bands only as far as one more height of these."""
    seen = np.concatenate([np.asarray(line.y, dtype=float) for line in chart.lines])
    seen = seen[np.isfinite(seen)]
    low, high = axes.get_ylim()
    if not len(seen):
        return
    if chart.log_y:
        axes.set_ylim(max(low, seen.min() / 3), min(high, seen.max() * 3))
    else:
        reach = max(float(np.ptp(seen)), 1e-12)
        axes.set_ylim(max(low, seen.min() - reach), min(high, seen.max() + reach))


def ends(lines: Sequence[Line]) -> list[tuple[float, str, str]]:
    """Where names stand: at the last number of each color's first solid line."""
    found: dict[int, tuple[float, str, str]] = {}
    for line in sorted(lines, key=lambda line: line.dashed):
        finite = [y for y in line.y if np.isfinite(y)]
        if finite and line.color not in found:
            name = line.name.rpartition(", ")[0] or line.name
            found[line.color] = (finite[-1], name, LINE_COLORS[line.color % len(LINE_COLORS)])
    return list(found.values())


def draw_heat(heat: Heat) -> Figure:
    """A shade and a number for each pair; the lowest is framed."""
    figure, axes = _figure(heat.title)
    value = np.array(heat.value, dtype=float)
    shades = np.log(value) if np.nanmin(value) > 0 else value
    axes.imshow(shades, cmap="Blues_r", origin="lower", aspect="auto", alpha=0.85)
    middle = np.nanmin(shades) + 0.45 * (np.nanmax(shades) - np.nanmin(shades))
    lowest = np.unravel_index(np.nanargmin(value), value.shape)
    for at, v in np.ndenumerate(value):
        dark = np.isfinite(v) and shades[at] < middle
        axes.text(
            at[1], at[0], f"{v:.3g}" if np.isfinite(v) else "–", ha="center", va="center",
            color="white" if dark else INK, fontsize=SIZE - 3,
            fontweight="bold" if at == lowest else "normal",
        )  # fmt: skip
    axes.add_patch(_frame_of(lowest))
    axes.set_xticks(range(len(heat.xs)), [f"{x:g}" for x in heat.xs])
    axes.set_yticks(range(len(heat.ys)), [f"{y:g}" for y in heat.ys])
    axes.set_xlabel(heat.x, fontsize=SIZE, color=INK)
    frame_axes(axes, f"{heat.y}; in bold the lowest")
    axes.grid(visible=False)
    return figure


def _frame_of(at: tuple[np.intp, ...]) -> Rectangle:
    from matplotlib.patches import Rectangle

    row, column = (int(i) for i in at)
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=3)
