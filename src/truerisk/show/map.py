"""The map of a test function: contour lines or a graph, paths, and names clear of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.show.panel import frame_axes, set_white_edge
from truerisk.show.style import (
    FAINT,
    INK,
    LINE_COLORS,
    MAP_LINES,
    MAP_SHADES,
    MOST_LINES,
    SIZE,
    format_significant,
    line_style,
)
from truerisk.show.trajectory import Trajectory, evaluate_function

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from truerisk.model import Function


CANDIDATES = 60
"""Points of a line beside which its name may stand."""

WIDE = 0.72
"""Width of a letter, in its height."""

SIDES = [side for side in product((-1, 0, 1), (-1, 0, 1)) if any(side)]
"""Right, left, above, below a point, and between these."""


class Box(NamedTuple):
    """A rectangle, in points of the drawing."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)

    def with_margin(self, width: float) -> Box:
        """Return the rectangle with a margin all round."""
        return Box(self.left - width, self.bottom - width, self.right + width, self.top + width)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points [n, 2] lie in it, as booleans [n]."""
        x, y = points.T
        return (self.left < x) & (x < self.right) & (self.bottom < y) & (y < self.top)

    def overlap_area(self, other: Box) -> float:
        """Return the area that two rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)


def text_box(text: str, size: float, anchor: np.ndarray, side: tuple[int, int]) -> Box:
    """Compute the rectangle of a text that stands beside a point.

    Args:
        text: what is written.
        size: height of a letter, in points.
        anchor: the point [2].
        side: -1, 0 or 1 to the right, and likewise up.

    >>> text_box("gd", 10.0, np.zeros(2), (1, 0))
    Box(left=8.0, bottom=-6.0, right=22.4, top=6.0)
    """
    # 0.8 letters keep a text clear of a mark's edge, 1.2 of the lines of another text
    width, height, gap = WIDE * size * len(text), 1.2 * size, 0.8 * size
    x = anchor[0] + side[0] * (gap + width / 2)
    y = anchor[1] + side[1] * (gap + height / 2)
    return Box(*(float(v) for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))


def fill_gaps(points: np.ndarray, spacing: float) -> np.ndarray:
    """Add points along a polyline until neighbours are at most ``spacing`` apart.

    Args:
        points: the polyline's [n, 2].
        spacing: the greatest distance.

    Returns:
        The points [m, 2], those given among them.
    """
    pieces = [points[:1]]
    for a, b in pairwise(points):
        count = int(np.ceil(np.linalg.norm(b - a) / spacing))
        # the first point of a piece is the last of the piece before
        pieces.append(a + (b - a) * np.linspace(0, 1, max(count, 1) + 1)[1:, None])
    return np.concatenate(pieces)


def place_names(
    texts: Sequence[str], lines: Sequence[np.ndarray], frame: Box, size: float, marks: np.ndarray
) -> list[Box | None]:
    """Find a rectangle for the name of each line, one after another.

    Args:
        texts: the names.
        lines: polylines [n, 2], in points of the drawing.
        frame: where names may stand.
        size: height of a letter, in points.
        marks: other points [n, 2] to keep clear of.

    Returns:
        A rectangle for each, or None where a line has no point in the frame.
    """
    lines = [fill_gaps(line, size / 2) for line in lines]
    occupied: list[Box] = []
    placed: list[Box | None] = []
    for i, (text, line) in enumerate(zip(texts, lines, strict=True)):
        inside = line[frame.contains(line)]
        if not len(inside):
            placed.append(None)
            continue
        others = np.concatenate([marks, *lines[:i], *lines[i + 1 :]])
        # a long path has thousands of points, and some dozens of them find a free place too
        anchors = inside[:: max(1, len(inside) // CANDIDATES)]
        boxes = [text_box(text, size, anchor, side) for anchor in anchors for side in SIDES]
        costs = [_placement_cost(b, line, others, occupied, frame, size) for b in boxes]
        best = boxes[int(np.argmin(costs))]
        placed.append(best)
        occupied.append(best)
    return placed


def _placement_cost(
    box: Box,
    line: np.ndarray,
    others: np.ndarray,
    occupied: Sequence[Box],
    frame: Box,
    size: float,
) -> float:
    """Weigh how much a name would hide, leave the frame, or seem to belong to another line."""
    hidden = box.with_margin(0.2 * size).contains(np.concatenate([line, others])).sum()
    near = box.with_margin(size).contains(others).sum()
    shared = sum(box.with_margin(0.3 * size).overlap_area(other) for other in occupied)
    # a name may hide a little of a line, but no other name and not the frame: hence the 1000
    outside = box.area - box.overlap_area(frame)
    return float(3 * hidden + near + 1000 * shared / box.area + 1000 * outside / box.area)


GRID = 301
"""Points along each side of the map."""
LINES = 16
"""Contour lines of a function with a lowest value."""
DEEPEST = 1e120
"""Values beyond it are not drawn, as axes overflow."""
NEAR = 1.5
"""Points further from the region's centre than so many of its half-widths do not widen the map."""


def map_window(function: Function, paths: Sequence[Trajectory]) -> list[tuple[float, float]]:
    """Choose what a map shows: the function's region and the paths, as wide as high.

    Points of a path that leaves far away do not count, but its start always does.

    Args:
        function: of one or two variables.
        paths: at least one with points.

    Returns:
        The lowest and the highest number of each axis.
    """
    low, high = np.array(function.region, dtype=float).T
    centre, reach = (low + high) / 2, (high - low).max() / 2
    points = np.concatenate([path.points for path in paths])
    if function.bounded:
        reach *= NEAR
    near = (np.abs(points - centre) <= reach).all(1)
    # a start far outside is shown, as a path without its start says nothing
    points = np.concatenate([points[near], _start_points(paths)])
    room = 0.04 * (points.max(0) - points.min(0))
    low, high = np.minimum(low, points.min(0) - room), np.maximum(high, points.max(0) + room)
    # both axes have one scale, so the wider one decides for both
    centre, half = (low + high) / 2, (high - low).max() / 2
    return [(float(c - half), float(c + half)) for c in centre]


def _start_points(paths: Sequence[Trajectory]) -> np.ndarray:
    return np.array([path.points[0] for path in paths if len(path.points)])


def contour_levels(value: np.ndarray, lowest: float | None) -> np.ndarray:
    """Choose heights of contour lines, in equal ratios above the lowest value or both ways from 0.

    Only those that values lie on both sides of: none where a function is constant, and others in
    equal ratios where all values lie between two of them.

    Args:
        value: the function's values on the map.
        lowest: its lowest value anywhere, or None where it has none.

    >>> contour_levels(np.array([1.0, 10001.0]), 1.0)[[0, -1]].round(3).tolist()
    [11.0, 6310.573]
    >>> (contour_levels(np.array([-4.0, 4.0]), None)[-3:] / 4).round(3).tolist()
    [0.251, 0.398, 0.631]
    >>> contour_levels(np.array([3.0, 3.0]), 3.0).tolist()
    []
    """
    low, high = value.min(initial=np.inf), value.max(initial=-np.inf)
    if not low < high:
        return np.empty(0)
    if lowest is None:
        top = np.abs(value).max()
        half = np.geomspace(top / 10**1.4, top, LINES // 2)
        heights = np.concatenate([-half[::-1], [0.0], half])
    else:
        above = value - lowest
        top = above.max()
        # the lowest grid point may lie on the minimum itself and would take most of the lines
        bottom = max(1e-5 * top, float(np.quantile(above, 0.001)))
        heights = lowest + np.geomspace(min(bottom, top / 10), top, LINES)
    within = heights[(low < heights) & (heights < high)]
    if len(within):
        return within
    base = lowest or 0.0
    return base + np.geomspace(low - base, high - base, LINES)[1:-1]


def draw_map(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """Draw contour lines of a function of two variables, its minima, and paths over them.

    Args:
        axes: an empty panel.
        function: of two variables.
        paths: in the order of their colors.
    """
    limits = map_window(function, paths)
    x, y = (np.linspace(*pair, GRID) for pair in limits)
    value = _mask_undrawable(evaluate_function(function, np.stack(np.meshgrid(x, y), -1)))
    heights = contour_levels(value.compressed(), function.minimum)
    if len(heights):
        _draw_levels(axes, x, y, value, heights)
    for i, path in enumerate(paths):
        _draw_path(axes, clip_path(path.points, limits), line_style(i), len(path.points))
    _draw_marks(axes, function.minima.numpy(), marker="*", markersize=17, label="minimum")
    # as many white marks on one place would look like one with a thick edge
    starts = np.unique(_start_points(paths), axis=0)
    _draw_marks(axes, starts, marker="o", markersize=11, label="start")
    axes.set(xlim=limits[0], ylim=limits[1], aspect="equal")
    axes.set_xlabel("$w_0$", fontsize=SIZE, color=INK)
    axes.set_ylabel("$w_1$", fontsize=SIZE, color=INK, rotation=0)
    # the panel is as wide as high: as many ticks fit either way
    axes.locator_params(nbins=5)
    heading = f"{_explain_flatness(value)}; ■ end"
    if len(heights):
        heading = _describe_levels(function, value)
    frame_axes(axes, heading)
    axes.grid(visible=False)


def _draw_levels(
    axes: Axes, x: np.ndarray, y: np.ndarray, value: np.ma.MaskedArray, heights: np.ndarray
) -> None:
    """Draw contour lines, and shades between them that get lighter as they rise."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shades", MAP_SHADES)
    # without the ends, what lies below the first line and above the last stays white
    edges = [value.min(), *heights, value.max()]
    colors = shades(np.linspace(0, 1, len(edges) - 1))
    axes.contourf(x, y, value, edges, colors=colors)
    axes.contour(x, y, value, heights, colors=MAP_LINES, linewidths=0.7, linestyles="-")


def _mask_undrawable(value: np.ndarray) -> np.ma.MaskedArray:
    """Mask values that are not finite, or too large to be drawn."""
    # not "> DEEPEST": a comparison with nan is false either way
    return np.ma.masked_where(~(np.abs(value) <= DEEPEST), value)


def _describe_levels(function: Function, value: np.ma.MaskedArray) -> str:
    """Say what the lines of a map are."""
    remark = "in equal ratios"
    if np.ma.is_masked(value):
        remark = "blank: not finite"
    if function.minimum is None:
        return f"lines of equal $f$, {remark}; ■ end"
    lowest = ""
    if function.minimum:
        lowest = f" - {format_significant(function.minimum, 3)}".replace("- -", "+ ")
    return f"lines of equal $f{lowest}$, {remark}; ☆ minimum, ■ end"


def _explain_flatness(value: np.ma.MaskedArray) -> str:
    """Say why a function has no contour lines."""
    if value.count():
        return "$f$ is constant here"
    return "$f$ is not finite here"


def clip_path(points: np.ndarray, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return a path as far as it can be drawn: up to the first point far outside.

    Args:
        points: the path's [n, d].
        limits: the lowest and the highest number of each axis.
    """
    low, high = np.array(limits).T
    # matplotlib joins points however far outside, and overflows where they are huge
    far = ~(np.abs(points - (low + high) / 2) <= 50 * (high - low)).all(1)
    if not far.any():
        return points
    return points[: int(far.argmax())]


def _draw_path(axes: Axes, points: np.ndarray, style: dict[str, Any], steps: int) -> None:
    """Draw a path with a white edge, a dot for each step where they are few, and its end."""
    if not len(points):
        return
    # a white edge keeps two paths apart where they cross
    axes.plot(*points.T, color="white", linewidth=4.6, zorder=3, solid_joinstyle="round")
    axes.plot(*points.T, **style, linewidth=2.4, zorder=4, solid_joinstyle="round")
    # more dots than these run into each other
    if steps <= 120:
        _draw_dots(axes, points, style["color"], 4.5)
    axes.plot(
        *points[-1:].T, marker="s", markersize=8.5, color=style["color"],
        markeredgecolor="white", markeredgewidth=1.4, zorder=7,
    )  # fmt: skip


def _draw_dots(axes: Axes, points: np.ndarray, color: str, size: float) -> None:
    axes.plot(
        *points.T, linestyle="", marker="o", markersize=size, markerfacecolor=color,
        markeredgecolor="white", markeredgewidth=0.6, zorder=5,
    )  # fmt: skip


def _draw_marks(axes: Axes, points: np.ndarray, **look: Any) -> None:
    """Draw white marks with a dark edge."""
    if len(points):
        axes.plot(
            *points.T, linestyle="", markerfacecolor="white", markeredgecolor=INK,
            markeredgewidth=1.8, zorder=6, **look,
        )  # fmt: skip


def draw_graph(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """Draw a function of one variable, with the points of the paths on it.

    Args:
        axes: an empty panel.
        function: of one variable.
        paths: in the order of their colors.
    """
    limits = map_window(function, paths)
    x = np.linspace(*limits[0], 4 * GRID)
    value = _mask_undrawable(evaluate_function(function, x[:, None]))
    axes.plot(x, value, color=FAINT, linewidth=2, zorder=2)
    for i, path in enumerate(paths):
        _draw_dots(axes, _points_on_graph(path, limits), LINE_COLORS[i % MOST_LINES], 7.5)
    _draw_marks(axes, _minima_on_graph(function), marker="*", markersize=17, label="minimum")
    starts = np.array([[path.points[0, 0], path.value[0]] for path in paths if len(path.points)])
    _draw_marks(axes, starts, marker="o", markersize=11, label="start")
    low, high, heading = 0.0, 0.0, _explain_flatness(value)
    if value.count():
        low, high, heading = value.min(), value.max(), "$f(w)$; ☆ local minimum"
    # a constant function needs an axis too
    room = 0.06 * (high - low) or 1.0
    axes.set(xlim=limits[0], ylim=(low - room, high + room))
    axes.set_xlabel("$w_0$", fontsize=SIZE, color=INK)
    frame_axes(axes, heading)


def _minima_on_graph(function: Function) -> np.ndarray:
    minima = function.minima.numpy()
    return np.column_stack([minima, evaluate_function(function, minima)])


def _points_on_graph(path: Trajectory, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return a path's points [n, 2] on the function's graph, as far as they can be drawn."""
    count = len(clip_path(path.points, limits))
    points = np.column_stack([path.points[:count, 0], path.value[:count]])
    return points[np.isfinite(points[:, 1])]


def name_paths(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """Write the names of the paths beside them, and "start" beside each start.

    Args:
        axes: the map or graph, with its place in the figure settled.
        function: its minima are kept clear of.
        paths: in the order of their colors.
    """
    limits = [axes.get_xlim(), axes.get_ylim()]
    minima = function.minima.numpy()
    points = [path.points for path in paths]
    if function.size == 1:
        minima = _minima_on_graph(function)
        points = [_points_on_graph(path, limits[:1]) for path in paths]
    drawn = [(i, clip_path(p, limits)) for i, p in enumerate(points) if len(p)]
    # from pixels to points, the unit of the letters
    scale = 72 / axes.figure.dpi
    lines = [scale * axes.transData.transform(p) for _, p in drawn]
    edge = axes.get_window_extent()
    frame = Box(*(scale * v for v in (edge.x0, edge.y0, edge.x1, edge.y1))).with_margin(-3)
    marks = scale * axes.transData.transform(minima.reshape(-1, 2))
    starts = [line[0] for line in lines]
    # runs of one study mostly start at one point, which is named once
    distinct_starts = list({tuple(np.round(start, 1)): None for start in starts})
    texts = [*(paths[i].label for i, _ in drawn), *["start"] * len(distinct_starts)]
    colors = [*(LINE_COLORS[i % MOST_LINES] for i, _ in drawn), *[INK] * len(distinct_starts)]
    anchors = [*lines, *(np.array([start]) for start in distinct_starts)]
    obstacles = np.concatenate([marks, np.array(starts).reshape(-1, 2)])
    boxes = place_names(texts, anchors, frame, SIZE, obstacles)
    for text, box, color in zip(texts, boxes, colors, strict=True):
        if box is None:
            continue
        middle = ((box.left + box.right) / 2 / scale, (box.bottom + box.top) / 2 / scale)
        x, y = axes.transData.inverted().transform(middle)
        written = axes.text(
            x, y, text, color=color, fontsize=SIZE, fontweight="bold",
            ha="center", va="center", zorder=9,
        )  # fmt: skip
        set_white_edge(written)
