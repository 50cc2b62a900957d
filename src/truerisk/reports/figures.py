"""Charts as image files: SVG and PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.core.atomic_files import replacing
from truerisk.reports.charts import ChartLine, HeatMap, LineChart
from truerisk.show.panel import frame_axes, label_ends, new_figure, set_plain_ticks
from truerisk.show.style import DASHES, FAINT, INK, LINE_COLORS, SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")

SHORT_NAME = 24
"""Letters of a name that fit beside the lines' ends; longer ones are written below."""
LEGEND_WIDTH = 55
"""Letters of a line of names below."""


def save_charts(charts: Iterable[LineChart | HeatMap], folder: Path) -> list[Path]:
    """Draw each chart into ``folder/KEY.svg`` and ``folder/KEY.png``.

    Args:
        charts: what to draw.
        folder: where to; it is made where missing.

    Returns:
        The files written.
    """
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text, to be searched and edited
        for chart in charts:
            figure = draw_chart(chart)
            for kind in FORMATS:
                path = folder / f"{chart.key}.{kind}"
                with replacing(path) as part:
                    figure.savefig(part, format=kind)
                written.append(path)
    return written


def draw_chart(chart: LineChart | HeatMap) -> Figure:
    """Draw a chart of either kind."""
    if isinstance(chart, HeatMap):
        return draw_map(chart)
    return draw_lines(chart)


def draw_lines(chart: LineChart) -> Figure:
    """Draw lines with bands, and write their names at their ends."""
    figure = new_figure(chart.title, dpi=110, layout="constrained")
    axes = figure.subplots()
    if chart.log_y:
        axes.set_yscale("log")
    if chart.log_x:
        axes.set_xscale("log")
    for line in chart.lines:
        draw_line(axes, line, chart.log_y)
    axes.set_xlabel(chart.x, fontsize=SIZE, color=INK)
    frame_axes(axes, chart.y)
    limit_height(axes, chart)
    name_lines(axes, find_ends(chart.lines))
    if not chart.log_x and all(float(x).is_integer() for line in chart.lines for x in line.x):
        axes.locator_params(axis="x", integer=True)
    set_plain_ticks(axes)
    return figure


def draw_line(axes: Axes, line: ChartLine, log: bool) -> None:
    """Draw a line; it is thin, dashed and without a band where it is the second of its color.

    Args:
        axes: where to.
        line: the line.
        log: whether the vertical scale is logarithmic.
    """
    color = LINE_COLORS[line.color % len(LINE_COLORS)]
    x, y = np.array(line.x, dtype=float), np.array(line.y, dtype=float)
    stroke, width, marker, steps = "-", 2.6, "None", "default"
    if line.dashed or line.beyond:
        stroke, width = DASHES[1], 1.8
    if line.reference:
        color, stroke, width = FAINT, ":", 2.0
    if line.dots:
        stroke = ""
    if line.steps:
        steps = "steps-post"
    # of few points a reader sees which were measured
    if line.dots or (len(x) < 12 and not line.steps and not line.reference):
        marker = "o"
    axes.plot(
        x, y, color=color, zorder=3, linestyle=stroke, linewidth=width, marker=marker, markersize=6,
        drawstyle=steps,
    )  # fmt: skip
    if len(line.low) and not line.dashed:
        low, high = np.array(line.low, dtype=float), np.array(line.high, dtype=float)
        if log:
            # an interval may reach below zero, where a logarithmic scale ends
            low = np.where(low > 0, low, y / 10)
        if line.dots:
            axes.vlines(x, low, high, color=color, zorder=3, linewidth=1.8)
        else:
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def name_lines(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write names in their lines' colors: at the lines' ends, or below where one is long.

    Args:
        axes: where to.
        ends: height, name and color of each.
    """
    if all(len(name) <= SHORT_NAME for _, name, _ in ends):
        label_ends(axes, ends)
        return
    figure: Any = axes.figure
    # the legend takes colors from lines; these have no points and leave the axes as they are
    samples = [axes.plot([], [], color=color, linewidth=2.6)[0] for _, _, color in ends]
    names = [textwrap.fill(name, LEGEND_WIDTH) for _, name, _ in ends]
    figure.legend(
        samples, names, loc="outside lower left", labelcolor="linecolor", frameon=False,
        fontsize=SIZE,
    )  # fmt: skip


def limit_height(axes: Axes, chart: LineChart) -> None:
    """Limit the y-axis to the lines' range, extended for bands by at most that range (or 3×).

    Args:
        axes: on which the chart has been drawn.
        chart: the chart.
    """
    heights = np.concatenate([np.asarray(line.y, dtype=float) for line in chart.lines])
    heights = heights[np.isfinite(heights)]
    if not len(heights):
        return
    low, high = axes.get_ylim()
    if chart.log_y:
        axes.set_ylim(max(low, heights.min() / 3), min(high, heights.max() * 3))
    else:
        reach = max(float(np.ptp(heights)), 1e-12)  # of a level line the range is 0
        axes.set_ylim(max(low, heights.min() - reach), min(high, heights.max() + reach))


def find_ends(lines: Sequence[ChartLine]) -> list[tuple[float, str, str]]:
    """Find where names stand: at the last number of each color's first solid line.

    Returns:
        Height, name and color for each color.
    """
    ends: dict[int, tuple[float, str, str]] = {}
    for line in sorted(lines, key=lambda line: line.dashed):
        finite = [y for y in line.y if np.isfinite(y)]
        if finite and line.reference:
            ends[-1] = (finite[-1], line.name, FAINT)
        elif finite and line.color not in ends:
            # both lines of a color share a name, which ends in the risk that they show
            name = line.name.rpartition(", ")[0] or line.name
            ends[line.color] = (finite[-1], name, LINE_COLORS[line.color % len(LINE_COLORS)])
    return list(ends.values())


def draw_map(heat_map: HeatMap) -> Figure:
    """Draw a shade and a number for each pair; the lowest is framed."""
    from matplotlib.patches import Rectangle

    figure = new_figure(heat_map.title, dpi=110, layout="constrained")
    axes = figure.subplots()
    value = np.array(heat_map.value, dtype=float)
    shades = value
    if np.nanmin(value) > 0:
        shades = np.log(value)
    axes.imshow(shades, cmap="Blues_r", origin="lower", aspect="auto", alpha=0.85)
    # below this shade the ground is so dark that numbers are written in white
    middle = np.nanmin(shades) + 0.45 * (np.nanmax(shades) - np.nanmin(shades))
    lowest = np.unravel_index(np.nanargmin(value), value.shape)
    for at, number in np.ndenumerate(value):
        text, color, weight = "–", INK, "normal"
        if np.isfinite(number):
            text = f"{number:.3g}"
        if shades[at] < middle:
            color = "white"
        if at == lowest:
            weight = "bold"
        axes.text(
            at[1], at[0], text, ha="center", va="center", color=color, fontsize=SIZE - 3,
            fontweight=weight,
        )  # fmt: skip
    row, column = map(int, lowest)
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=3))
    axes.set_xticks(range(len(heat_map.xs)), [f"{x:g}" for x in heat_map.xs])
    axes.set_yticks(range(len(heat_map.ys)), [f"{y:g}" for y in heat_map.ys])
    axes.set_xlabel(heat_map.x, fontsize=SIZE, color=INK)
    frame_axes(axes, f"{heat_map.y}; in bold the lowest")
    axes.grid(visible=False)
    return figure
