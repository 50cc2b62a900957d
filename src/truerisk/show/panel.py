"""What figures are made of: panels, their ticks, the names of lines, and the file of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from truerisk.core.atomic_files import replacing
from truerisk.show.style import FAINT, INCHES, INK, PAPER, RULE, SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from PIL.Image import Image

MARGINS = {"bottom": 0.1, "top": 0.89}
"""Of panels, in shares of the figure."""
GAP = 0.52
"""Inches between two panels."""
LETTER, DIGIT = 0.68 * SIZE, 0.64 * (SIZE - 1)
"""Widths of a letter of a name and of a digit of a tick's label, in points."""
FILE_COLORS = 256
"""Of a file: shades and lines need no more, and take a third of the space then."""


def new_figure(
    title: str = "", dpi: int = 150, layout: Literal["constrained"] | None = None
) -> Figure:
    """Make an empty figure with a title.

    Args:
        title: a line above it.
        dpi: pixels an inch.
        layout: matplotlib's own; None for panels that ``lay_out`` arranges.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=dpi, facecolor=PAPER, layout=layout)
    write_title(figure, title)
    return figure


def write_title(figure: Figure, title: str) -> None:
    """Write a title above a figure, at its left.

    Args:
        figure: any.
        title: one line.
    """
    figure.suptitle(title, x=0.01, ha="left", fontsize=SIZE + 2, fontweight="bold", color=INK)


def spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart, each pair by equal shares, until they are ``gap`` from each other.

    Args:
        heights: in any order and unit.
        gap: the least distance, in the same unit.

    Returns:
        The heights that replace them, in the order they were given.

    >>> spread_apart([1.0, 1.1, 5.0], 0.5)
    [0.8, 1.3, 5.0]
    """
    moved = np.asarray(heights, dtype=float)
    order = np.argsort(moved, kind="stable")
    # each pass moves neighbours only, so that crowded labels need several
    for _ in range(100):
        missing = np.clip(gap - np.diff(moved[order]), 0, None) / 2
        if not missing.any():
            break
        moved[order] += np.append(0, missing) - np.append(missing, 0)
    # the sixth digit is below a pixel, and hides the order in which halves were added
    return [round(float(height), 6) for height in moved]


def move_inside(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights that are ``gap`` apart to between 0 and 1, or around ½ if there is no room.

    Args:
        heights: shares of an axis, already ``gap`` apart.
        gap: the distance to keep.

    Returns:
        The heights that replace them, in the order they were given.

    >>> move_inside([-0.2, 0.3, 0.9], 0.4), move_inside([-0.2, 0.8], 2.0)
    ([0.0, 0.4, 0.9], [-0.5, 1.5])
    """
    moved, steps = np.asarray(heights, dtype=float), gap * np.arange(len(heights))
    order = np.argsort(moved, kind="stable")
    # each height keeps room for those before and after it
    low, high = 0.0, 1 - gap * (len(heights) - 1)
    if high <= 0:
        low = high = high / 2
    moved[order] = np.clip(moved[order], low + steps, high + steps)
    return [round(float(height), 6) for height in moved]


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right of an axes, level with the lines' ends and clear of each other.

    Args:
        axes: with its limits and scale set.
        ends: for each line the last value, the name, and the color.
    """
    # only the shares of the axes' height matter here, and no layout changes those
    scale = axes.yaxis.get_transform()
    low, high = (scale.transform(y) for y in axes.get_ylim())
    shares = [(scale.transform(y) - low) / (high - low) for y, _, _ in ends]
    line = 1.3 * SIZE / 72 / (axes.get_position().height * INCHES[1])
    for share, (_, text, color) in zip(
        move_inside(spread_apart(shares, line), line), ends, strict=True
    ):
        write_name_at_right(axes, share, text, color, SIZE)


def write_name_at_right(axes: Axes, share: float, text: str, color: str, size: float) -> None:
    """Write a line's name at the right of its axes.

    Args:
        axes: the line's.
        share: how far up, from 0 to 1.
        text: the name.
        color: the line's.
        size: of the text, in points.
    """
    axes.annotate(
        text, (1, share), xycoords="axes fraction", xytext=(8, 0), textcoords="offset points",
        va="center", color=color, fontsize=size, fontweight="bold", annotation_clip=False,
    )  # fmt: skip


def set_white_edge(written: Text) -> None:
    """Give a text a white edge, so that it is readable on whatever lies below it."""
    from matplotlib.patheffects import withStroke

    written.set_path_effects([withStroke(linewidth=4, foreground="white")])


def set_plain_ticks(axes: Axes) -> None:
    """Write tick labels as plain numbers; on a log scale with ticks at 1, 2 and 5 of a decade."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, NullFormatter, NullLocator

    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        major: Locator = LogLocator(subs=(1.0, 2.0, 5.0))
        minor: Locator = NullLocator()
        if np.log10(high / low) > 2.5:
            major, minor = LogLocator(subs=(1.0,)), LogLocator(subs=(2.0, 5.0))
        axes.yaxis.set_major_locator(major)
        axes.yaxis.set_minor_locator(minor)
        axes.yaxis.set_minor_formatter(NullFormatter())
    written = FuncFormatter(lambda y, _: f"{y:.4g}".replace("e+0", "e").replace("e-0", "e-"))
    axes.yaxis.set_major_formatter(written)


def frame_axes(axes: Axes, heading: str) -> None:
    """Write a heading, and show only the axes that carry numbers.

    Args:
        axes: one panel.
        heading: what it shows.
    """
    axes.set_title(heading, loc="left", y=1.0, fontsize=SIZE, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=SIZE - 1, color=FAINT, labelcolor=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def stack_panels(figure: Figure, headings: Sequence[str], ratios: Sequence[float]) -> list[Axes]:
    """Put panels one above the other, over the same horizontal axis.

    What is written beside them is counted in letters (``lay_out``): a constrained layout takes
    longer than drawing the lines.

    Args:
        figure: without a layout engine.
        headings: a panel each.
        ratios: of their heights; those that are too many are not used.
    """
    count = len(headings)
    room = (MARGINS["top"] - MARGINS["bottom"]) * INCHES[1] - (count - 1) * GAP
    figure.subplots_adjust(**MARGINS, hspace=GAP / (room / count))
    axes = figure.subplots(count, sharex=True, squeeze=False, height_ratios=ratios[:count])[:, 0]
    for panel, heading in zip(axes, headings, strict=True):
        frame_axes(panel, heading)
    return list(axes)


def lay_out(figure: Figure) -> None:
    """Write the numbers of the axes, with room for them and at the right for the names of lines."""
    # a layout engine makes room by itself, and would move what is written here
    if figure.get_layout_engine() is not None:
        return
    # in a constrained layout matplotlib has made room already
    texts: list[Any] = [text for axes in figure.axes for text in axes.texts]
    names = [text.get_text() for text in texts if text.xycoords == "axes fraction"]
    labels = [label for axes in figure.axes for _, label in list_ticks(axes.yaxis)]
    letters, digits = (max(map(len, words), default=0) for words in (names, labels))
    points = 72 * INCHES[0]
    left, right = (12 + digits * DIGIT) / points, 0.98 - (letters + 1) * LETTER / points
    figure.subplots_adjust(left=left, right=right)
    for axes in figure.axes:
        write_vertical_ticks(axes)
        axes.xaxis.set_visible(False)
    write_horizontal_ticks(figure.axes[-1])


def list_ticks(axis: Axis) -> list[tuple[float, str]]:
    """List where an axis has ticks, and what is written there."""
    low, high = axis.get_view_interval()
    places = [place for place in axis.get_majorticklocs() if low <= place <= high]
    return list(zip(places, axis.get_major_formatter().format_ticks(places), strict=True))


def write_vertical_ticks(axes: Axes) -> None:
    """Write the numbers at the left, each with a line across."""
    from matplotlib.collections import LineCollection

    # matplotlib's own ticks are five artists each, which take longer than the rest of a figure
    transform, ticks = axes.get_yaxis_transform(), list_ticks(axes.yaxis)
    across = [[(0, y), (1, y)] for y, _ in ticks]
    rules = LineCollection(across, transform=transform, colors=RULE, linewidths=0.8, zorder=0.5)
    axes.add_collection(rules, autolim=False)
    for y, label in ticks:
        write_text(axes, 0, y, label, transform, (-7, 0), ha="right", va="center_baseline")
    axes.yaxis.set_visible(False)


def write_horizontal_ticks(axes: Axes) -> None:
    """Write the numbers below, each with a mark, and what they are."""
    from matplotlib.lines import Line2D

    transform, ticks = axes.get_xaxis_transform(), list_ticks(axes.xaxis)
    places, below = [x for x, _ in ticks], [0] * len(ticks)
    # marker 3 is a tick that points down
    marks = Line2D(places, below, color=FAINT, linestyle="", marker=3, markersize=3.5)
    axes.figure.add_artist(marks).set_transform(transform)
    for x, label in ticks:
        write_text(axes, x, 0, label, transform, (0, -7), ha="center", va="top")
    write_text(axes, 0.5, 0, axes.get_xlabel(), axes.transAxes, (0, -28), ha="center", va="top")


def write_text(
    axes: Axes, x: float, y: float, text: str, transform: Any, shift: tuple[int, int], **how: Any
) -> None:
    """Write a text of the figure's, some points away from a place on an axes.

    Args:
        axes: an axes of the figure.
        x: the place, in the coordinates of ``transform``.
        y: the place.
        text: what is written.
        transform: matplotlib's, from coordinates to pixels.
        shift: points to the right and up.
        how: options of ``Figure.text``.
    """
    from matplotlib.transforms import offset_copy

    figure: Any = axes.figure
    moved = offset_copy(transform, figure, *shift, units="points")
    figure.text(x, y, text, transform=moved, fontsize=SIZE - 1, color=INK, **how)


def set_integer_axis(axes: Axes, first: float, last: float, unit: str) -> None:
    """Let the horizontal axis be whole numbers from the first to the last, with some room.

    Args:
        axes: the lowest of the panels over that axis.
        first: its first number.
        last: its last number.
        unit: what it counts.
    """
    from matplotlib.ticker import MaxNLocator

    # a run of one epoch has a width too
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(locator)
    axes.set_xlabel(unit, fontsize=SIZE, color=INK)


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, as a whole or not at all.

    Args:
        figure: drawn as it is.
        path: the file; its folder is made if it is not there.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    # not savefig, which encodes a file of four channels, three times as large
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with replacing(path) as part:
        index_colors(np.asarray(canvas.buffer_rgba())).save(part, format="png")
    return path


def index_colors(pixels: np.ndarray) -> Image:
    """Reduce an image [height, width, 4] to its most frequent colors, others to the nearest."""
    from PIL import Image

    # a pixel as one number is sorted faster than a row of four
    flat = pixels.view(np.uint32).ravel()
    # neighbours are alike in most places of a figure: runs of pixels are counted, not pixels
    begins = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(begins, append=len(flat))
    colors, run = np.unique(flat[begins], return_inverse=True)
    # stable: equally frequent colors keep their order on every machine
    order = np.argsort(-np.bincount(run, lengths), kind="stable")
    rgb = colors.view(np.uint8).reshape(-1, 4)[order, :3]
    code = np.empty(len(colors), np.uint8)
    # the 256 kept are nearest to themselves
    code[order] = nearest_colors(rgb, rgb[:FILE_COLORS])
    image = Image.fromarray(np.repeat(code[run], lengths).reshape(pixels.shape[:2]))
    image.putpalette(rgb[:FILE_COLORS].tobytes())
    return image


def nearest_colors(colors: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Find for each of some colors [m, 3] the nearest of a palette [n, 3].

    Args:
        colors: red, green and blue from 0 to 255.
        palette: likewise.

    Returns:
        Rows of the palette [m].

    >>> nearest_colors(np.array([[9, 9, 9], [250, 0, 0]]), np.array([[255, 0, 0], [0, 0, 0]]))
    array([1, 0])
    """
    there = palette.astype(np.float32)
    # ‖c − t‖² without ‖c‖², which is the same for every t
    return np.argmin((there**2).sum(1) - 2 * colors.astype(np.float32) @ there.T, axis=1)
