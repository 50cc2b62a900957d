"""What figures are made of: panels one above the other, their ticks and the names of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#8a8a8a"
INCHES = (7.0, 6.4)
SIZE = 15.0
"""Points of the text."""
MARGINS = {"bottom": 0.1, "top": 0.89}
"""Of panels, in shares of the figure."""
GAP = 0.52
"""Inches between two panels."""
LETTER, DIGIT = 0.68 * SIZE, 0.64 * (SIZE - 1)
"""Widths of a letter of a name and of a digit of a tick's label, in points."""


def apart(heights: list[float], gap: float) -> list[float]:
    """Move heights apart, each pair by equal shares, until they are ``gap`` from each other.

    >>> apart([1.0, 1.1, 5.0], 0.5)
    [0.8, 1.3, 5.0]
    """
    moved = np.asarray(heights, dtype=float)
    order = np.argsort(moved, kind="stable")
    for _ in range(100):
        missing = np.clip(gap - np.diff(moved[order]), 0, None) / 2
        if not missing.any():
            break
        moved[order] += np.append(0, missing) - np.append(missing, 0)
    return [round(float(height), 6) for height in moved]


def held(heights: list[float], gap: float) -> list[float]:
    """Heights that are ``gap`` apart, moved to between 0 and 1; around ½ if there is no room.

    >>> held([-0.2, 0.3, 0.9], 0.4), held([-0.2, 0.8], 2.0)
    ([0.0, 0.4, 0.9], [-0.5, 1.5])
    """
    moved, steps = np.asarray(heights, dtype=float), gap * np.arange(len(heights))
    order = np.argsort(moved, kind="stable")
    spare = 1 - gap * (len(heights) - 1)
    low, high = (0.0, spare) if spare > 0 else (spare / 2, spare / 2)
    moved[order] = np.clip(moved[order], low + steps, high + steps)
    return [round(float(height), 6) for height in moved]


def label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write names at the right of an axes, level with the lines' ends and clear of each other."""
    # only the shares of the axes' height matter here, and no layout changes those
    low, high = (axes.yaxis.get_transform().transform(y) for y in axes.get_ylim())
    spots = [(axes.yaxis.get_transform().transform(y) - low) / (high - low) for y, _, _ in ends]
    line = 1.3 * SIZE / 72 / (axes.get_position().height * INCHES[1])
    for spot, (_, text, color) in zip(held(apart(spots, line), line), ends, strict=True):
        axes.annotate(
            text, (1, spot), xycoords="axes fraction", xytext=(8, 0), textcoords="offset points",
            va="center", color=color, fontsize=SIZE, fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def plain_ticks(axes: Axes) -> None:
    """Write tick labels as plain numbers; on a log scale with ticks at 1, 2 and 5 of a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        wide = np.log10(high / low) > 2.5
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)) if wide else NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    written = FuncFormatter(lambda y, _: f"{y:.4g}".replace("e+0", "e").replace("e-0", "e-"))
    axes.yaxis.set_major_formatter(written)


def frame(axes: Axes, heading: str) -> None:
    """A heading, and only the axes that carry numbers."""
    axes.set_title(heading, loc="left", y=1.0, fontsize=SIZE, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=SIZE - 1, color=FAINT, labelcolor=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def stacked(figure: Figure, headings: Sequence[str], ratios: Sequence[float]) -> list[Axes]:
    """Panels one above the other, over the same numbers.

    What is written beside them is counted in letters (`lay_out`): a constrained layout takes longer
    than drawing the lines.
    """
    count = len(headings)
    room = (MARGINS["top"] - MARGINS["bottom"]) * INCHES[1] - (count - 1) * GAP
    figure.subplots_adjust(**MARGINS, hspace=GAP / (room / count))
    axes = figure.subplots(count, sharex=True, squeeze=False, height_ratios=ratios[:count])[:, 0]
    for panel, heading in zip(axes, headings, strict=True):
        frame(panel, heading)
    return list(axes)


def lay_out(figure: Figure) -> None:
    """Write the numbers of the axes, with room for them and at the right for the names of lines."""
    if figure.get_layout_engine() is not None:
        return
    texts: list[Any] = [text for axes in figure.axes for text in axes.texts]
    names = [text.get_text() for text in texts if text.xycoords == "axes fraction"]
    labels = [label for axes in figure.axes for _, label in ticks(axes.yaxis)]
    letters, digits = (max(map(len, found), default=0) for found in (names, labels))
    points = 72 * INCHES[0]
    left, right = (12 + digits * DIGIT) / points, 0.98 - (letters + 1) * LETTER / points
    figure.subplots_adjust(left=left, right=right)
    for axes in figure.axes:
        write_vertical(axes)
        axes.xaxis.set_visible(False)
    write_horizontal(figure.axes[-1])


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Where an axis has ticks, and what is written there.

    Matplotlib's own are five artists each, which take longer than all the rest of a figure.
    """
    low, high = axis.get_view_interval()
    places = [place for place in axis.get_majorticklocs() if low <= place <= high]
    return list(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def write_vertical(axes: Axes) -> None:
    """The numbers at the left, each with a line across."""
    from matplotlib.collections import LineCollection

    at, found = axes.get_yaxis_transform(), ticks(axes.yaxis)
    across = [[(0, y), (1, y)] for y, _ in found]
    rules = LineCollection(across, transform=at, colors="#dddddd", linewidths=0.8, zorder=0.5)
    axes.add_collection(rules, autolim=False)
    for y, label in found:
        write(axes, 0, y, label, at, (-7, 0), ha="right", va="center_baseline")
    axes.yaxis.set_visible(False)


def write_horizontal(axes: Axes) -> None:
    """The numbers below, each with a mark, and what they are."""
    from matplotlib.lines import Line2D

    at, found = axes.get_xaxis_transform(), ticks(axes.xaxis)
    places, below = [x for x, _ in found], [0] * len(found)
    marks = Line2D(places, below, color=FAINT, linestyle="", marker=3, markersize=3.5)  # down
    axes.figure.add_artist(marks).set_transform(at)
    for x, label in found:
        write(axes, x, 0, label, at, (0, -7), ha="center", va="top")
    write(axes, 0.5, 0, axes.get_xlabel(), axes.transAxes, (0, -28), ha="center", va="top")


def write(
    axes: Axes, x: float, y: float, text: str, at: Any, shift: tuple[int, int], **how: Any
) -> None:
    """A text of the figure's, some points away from a place on an axes."""
    from matplotlib.transforms import offset_copy

    figure: Any = axes.figure
    moved = offset_copy(at, figure, *shift, units="points")
    figure.text(x, y, text, transform=moved, fontsize=SIZE - 1, color=INK, **how)


def over(axes: Axes, first: float, last: float, unit: str) -> None:
    """Let the horizontal axis be whole numbers from the first to the last, with some room."""
    from matplotlib.ticker import MaxNLocator

    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(locator)
    axes.set_xlabel(unit, fontsize=SIZE, color=INK)
