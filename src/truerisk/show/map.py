"""The map of a test function: its contour lines, or its graph, with paths on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.show.callout import Box, place
from truerisk.show.number import format_significant
from truerisk.show.panel import frame_axes
from truerisk.show.style import FAINT, INK, LINE_COLORS, MOST_LINES, SIZE, line_style
from truerisk.show.trajectory import Trajectory, at
from truerisk.show.values import DEEPEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from truerisk.model import Function

GRID = 301
LINES = 16
NEAR = 1.5
"""Points further from the region's centre than so many of its half-widths do not widen the map."""


def window(function: Function, paths: Sequence[Trajectory]) -> list[tuple[float, float]]:
    """What a map shows, a pair an axis and as wide as high: the function's region and the paths.

    Points of a path that leaves far away do not count, but its start always does.
    """
    low, high = np.array(function.region, dtype=float).T
    centre, reach = (low + high) / 2, (high - low).max() / 2
    points = np.concatenate([path.points for path in paths])
    reach *= NEAR if function.bounded else 1.0
    near = (np.abs(points - centre) <= reach).all(1)
    starts = np.array([path.points[0] for path in paths if len(path.points)])
    points = np.concatenate([points[near], starts])
    room = 0.04 * (points.max(0) - points.min(0))
    low, high = np.minimum(low, points.min(0) - room), np.maximum(high, points.max(0) + room)
    centre, half = (low + high) / 2, (high - low).max() / 2
    return [(float(c - half), float(c + half)) for c in centre]


def levels(value: np.ndarray, lowest: float | None) -> np.ndarray:
    """Heights of contour lines in equal ratios above the lowest value, or both ways from 0.

    Only those that values lie on both sides of: none where a function is constant, and others in
    equal ratios where all values lie between two of them.

    >>> levels(np.array([1.0, 10001.0]), 1.0)[[0, -1]].round(3).tolist()
    [11.0, 6310.573]
    >>> (levels(np.array([-4.0, 4.0]), None)[-3:] / 4).round(3).tolist()
    [0.251, 0.398, 0.631]
    >>> levels(np.array([3.0, 3.0]), 3.0).tolist()
    []
    """
    low, high = value.min(initial=np.inf), value.max(initial=-np.inf)
    if not low < high:
        return np.empty(0)
    heights = both_ways(value) if lowest is None else above(value, lowest)
    within = heights[(low < heights) & (heights < high)]
    base = lowest or 0.0
    return within if len(within) else base + np.geomspace(low - base, high - base, LINES)[1:-1]


def both_ways(value: np.ndarray) -> np.ndarray:
    """Heights in equal ratios up and down from 0."""
    top = np.abs(value).max()
    half = np.geomspace(top / 10**1.4, top, LINES // 2)
    return np.concatenate([-half[::-1], [0.0], half])


def above(value: np.ndarray, lowest: float) -> np.ndarray:
    """Heights in equal ratios above the lowest value."""
    height = value - lowest
    top = height.max()
    bottom = max(1e-5 * top, float(np.quantile(height, 0.001)))
    return lowest + np.geomspace(min(bottom, top / 10), top, LINES)


def draw_map(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """Contour lines of a function of two variables, its minima, and the paths over them."""
    limits = window(function, paths)
    x, y = (np.linspace(*pair, GRID) for pair in limits)
    value = drawable(at(function, np.stack(np.meshgrid(x, y), -1)))
    heights = levels(value.compressed(), function.minimum)
    if len(heights):
        draw_levels(axes, x, y, value, heights)
    for i, path in enumerate(paths):
        draw_path(axes, shown(path.points, limits), line_style(i), len(path.points))
    mark(axes, function.minima.numpy(), marker="*", markersize=17, label="minimum")
    starts = np.unique([path.points[0] for path in paths if len(path.points)], axis=0)
    mark(axes, starts, marker="o", markersize=11, label="start")
    axes.set(xlim=limits[0], ylim=limits[1], aspect="equal")
    axes.set_xlabel("$w_0$", fontsize=SIZE, color=INK)
    axes.set_ylabel("$w_1$", fontsize=SIZE, color=INK, rotation=0)
    axes.locator_params(nbins=5)
    frame_axes(axes, heading(function, value, bool(len(heights))))
    axes.grid(visible=False)


def draw_levels(
    axes: Axes, x: np.ndarray, y: np.ndarray, value: np.ma.MaskedArray, heights: np.ndarray
) -> None:
    """Contour lines, and shades between them that get lighter as they rise."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("shades", ["#c9d3df", "#fafafa"])
    edges = [value.min(), *heights, value.max()]
    colors = shades(np.linspace(0, 1, len(edges) - 1))
    axes.contourf(x, y, value, edges, colors=colors)
    axes.contour(x, y, value, heights, colors="#8793a3", linewidths=0.7, linestyles="-")


def drawable(value: np.ndarray) -> np.ma.MaskedArray:
    """Values without those that are not finite, or too large to be drawn."""
    return np.ma.masked_where(~(np.abs(value) <= DEEPEST), value)


def heading(function: Function, value: np.ma.MaskedArray, lines: bool) -> str:
    """What the lines of a map are, or why it has none."""
    if not lines:
        return f"{flat(value)}; ■ end"
    means = "blank: not finite" if np.ma.is_masked(value) else "in equal ratios"
    if function.minimum is None:
        return f"lines of equal $f$, {means}; ■ end"
    lowest = f" - {format_significant(function.minimum, 3)}" if function.minimum else ""
    lowest = lowest.replace("- -", "+ ")
    return f"lines of equal $f{lowest}$, {means}; ☆ minimum, ■ end"


def flat(value: np.ma.MaskedArray) -> str:
    """Why a function has no contour lines."""
    return "$f$ is constant here" if value.count() else "$f$ is not finite here"


def shown(points: np.ndarray, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """A path as far as it can be drawn: what comes after a point far outside is left out."""
    low, high = np.array(limits).T
    far = ~(np.abs(points - (low + high) / 2) <= 50 * (high - low)).all(1)
    return points[: int(far.argmax())] if far.any() else points


def draw_path(axes: Axes, points: np.ndarray, look: dict[str, Any], steps: int) -> None:
    """A path with a white edge, a dot for each step where they are few, and its end."""
    if not len(points):
        return
    axes.plot(*points.T, color="white", linewidth=4.6, zorder=3, solid_joinstyle="round")
    axes.plot(*points.T, **look, linewidth=2.4, zorder=4, solid_joinstyle="round")
    if steps <= 120:
        draw_dots(axes, points, look["color"], 4.5)
    axes.plot(
        *points[-1:].T, marker="s", markersize=8.5, color=look["color"],
        markeredgecolor="white", markeredgewidth=1.4, zorder=7,
    )  # fmt: skip


def draw_dots(axes: Axes, points: np.ndarray, color: str, size: float) -> None:
    """A dot for each step."""
    axes.plot(
        *points.T, linestyle="", marker="o", markersize=size, markerfacecolor=color,
        markeredgecolor="white", markeredgewidth=0.6, zorder=5,
    )  # fmt: skip


def mark(axes: Axes, points: np.ndarray, **look: Any) -> None:
    """White marks with a dark edge."""
    if len(points):
        axes.plot(
            *points.T, linestyle="", markerfacecolor="white", markeredgecolor=INK,
            markeredgewidth=1.8, zorder=6, **look,
        )  # fmt: skip


def draw_graph(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """A function of one variable, with the points of the paths on it."""
    limits = window(function, paths)
    x = np.linspace(*limits[0], 4 * GRID)
    value = drawable(at(function, x[:, None]))
    axes.plot(x, value, color=FAINT, linewidth=2, zorder=2)
    for i, path in enumerate(paths):
        draw_dots(axes, on_graph(path, limits), LINE_COLORS[i % MOST_LINES], 7.5)
    minima = function.minima.numpy()
    mark(axes, np.column_stack([minima, at(function, minima)]), marker="*", markersize=17,
         label="minimum")  # fmt: skip
    starts = np.array([[path.points[0, 0], path.value[0]] for path in paths if len(path.points)])
    mark(axes, starts, marker="o", markersize=11, label="start")
    low, high = (value.min(), value.max()) if value.count() else (0.0, 0.0)
    room = 0.06 * (high - low) or 1.0
    axes.set(xlim=limits[0], ylim=(low - room, high + room))
    axes.set_xlabel("$w_0$", fontsize=SIZE, color=INK)
    frame_axes(axes, "$f(w)$; ☆ local minimum" if value.count() else flat(value))


def on_graph(path: Trajectory, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """A path's points on the function's graph, as far as they can be drawn."""
    count = len(shown(path.points, limits))
    points = np.column_stack([path.points[:count, 0], path.value[:count]])
    return points[np.isfinite(points[:, 1])]


def name_paths(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """The names of the paths beside them, the start, and a key of the marks."""
    from matplotlib.patheffects import withStroke

    limits = [axes.get_xlim(), axes.get_ylim()]
    points = [p.points if function.size == 2 else on_graph(p, limits[:1]) for p in paths]
    known = [(i, shown(p, limits)) for i, p in enumerate(points) if len(p)]
    scale = 72 / axes.figure.dpi
    lines = [scale * axes.transData.transform(p) for _, p in known]
    edge = axes.get_window_extent()
    inner = Box(*(scale * v for v in (edge.x0, edge.y0, edge.x1, edge.y1))).grown(-3)
    stars = function.minima.numpy()
    stars = stars if function.size == 2 else np.column_stack([stars, at(function, stars)])
    marks = scale * axes.transData.transform(stars.reshape(-1, 2))
    starts = [line[0] for line in lines]
    texts = [paths[i].label for i, _ in known]
    first = list({tuple(np.round(s, 1)): None for s in starts})
    spots = place(
        [*texts, *["start"] * len(first)],
        [*lines, *(np.array([s]) for s in first)],
        inner, SIZE, np.concatenate([marks, np.array(starts).reshape(-1, 2)]),
    )  # fmt: skip
    colors = [*(LINE_COLORS[i % MOST_LINES] for i, _ in known), *[INK] * len(first)]
    for text, spot, color in zip([*texts, *["start"] * len(first)], spots, colors, strict=True):
        if spot is None:
            continue
        middle = ((spot.left + spot.right) / 2 / scale, (spot.bottom + spot.top) / 2 / scale)
        x, y = axes.transData.inverted().transform(middle)
        written = axes.text(
            x, y, text, color=color, fontsize=SIZE, fontweight="bold",
            ha="center", va="center", zorder=9,
        )  # fmt: skip
        written.set_path_effects([withStroke(linewidth=4, foreground="white")])
