"""Slices of J around the weights, and the path that led to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.figure_arrays import (
    Arrays,
    add_row,
    keep_arrays,
    locate_arrays,
    read_arrays,
    write_arrays,
)
from truerisk.objective import (
    LocalObjective,
    evaluate_line,
    evaluate_plane,
    filter_normalized_directions,
    principal_directions,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

MAX_NUMBERS = 2**24
"""Most numbers that the points of the path may take."""

ROOM = 0.2
"""What is shown around the path, as a share of its extent."""


class Landscape(Diagnostic):
    """J on planes through the last weights: along random directions, and along the path itself.

    Two random directions are filter-normalized (Li et al., "Visualizing the Loss Landscape of
    Neural Nets", NeurIPS 2018, §4); J is drawn along each and on the plane they span. A second
    plane is spanned by the principal directions of the path (§7), which is drawn into it: its
    points are the weights at the looks, at most ``most`` of them (of a longer run every second,
    fourth, …). ``share/1`` and ``share/2`` are the shares of the path's variance along the two
    directions; how far the path leaves the plane shows in what is missing to 1.

    Everything drawn is in ``figures/landscape.npz``, the points of the path in
    ``figures/landscape_path.npz``.

    Args:
        every: when to keep the weights; see `Diagnostic`.
        reach: of the random directions, in lengths of the weights' filters.
        points: of each side of a plane, and half as many as along a line.
        most: points of the path.
    """

    cost = "heavy"
    on_functions = True

    def __init__(
        self,
        every: Mapping[str, Any] | None = None,
        reach: float = 1.0,
        points: int = 21,
        most: int = 32,
    ) -> None:
        super().__init__(every)
        self.reach = check_float("diagnostics.landscape.reach", reach, above=True)
        self.points = check_int("diagnostics.landscape.points", points, 3)
        self.most = check_int("diagnostics.landscape.most", most, 2)

    def refuse(self, recipe: Recipe) -> str | None:
        """Refuse models with a single weight, through which there is no plane."""
        if sum(p.numel() for p in recipe.model.parameters() if p.requires_grad) < 2:
            return "there is no plane through a single weight: leave it out"
        return None

    def look(self, snapshot: Snapshot) -> Values:
        """Keep the weights, if they are among those that are kept."""
        w = snapshot.local_objective.w
        if snapshot.run.is_first_process:
            file = locate_arrays(snapshot, f"{self.name}_path")
            rows = add_row(read_arrays(file), snapshot.step, weights=w.cpu().numpy())
            most = min(self.most, max(2, MAX_NUMBERS // len(w)))
            write_arrays(file, thin_rows(rows, self.interval, most))
        return {}

    def finish(self, snapshot: Snapshot) -> Values:
        """Evaluate J on the planes."""
        # asked in this order: `is_finite` takes products with the Hessian
        if not snapshot.run.is_first_process or not snapshot.is_finite:
            return {}
        point = snapshot.local_objective
        rows = read_arrays(locate_arrays(snapshot, f"{self.name}_path"))
        rows = add_row(rows, snapshot.step, weights=point.w.cpu().numpy())
        path = torch.from_numpy(rows["weights"]).to(point.w)
        slices = evaluate_random_slices(point, self.reach, self.points)
        slices |= evaluate_path_slice(point, path, self.points)
        keep_arrays(snapshot, self.name, **slices)
        return {f"share/{i}": float(s) for i, s in enumerate(slices.get("share", ()), 1)}

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the slices that were kept beside the figure."""
        self.slices = read_arrays(path.with_suffix(".npz"))
        return super().draw(history, path, title) if self.slices else None

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw J along the random directions, on their plane, and on the path's with the path."""
        figure.set_size_inches(7, 14)
        lines, random, path = figure.subplots(3, height_ratios=(1, 1.6, 1.6))
        draw_random_lines(lines, self.slices)
        draw_random_plane(random, self.slices)
        draw_path_plane(path, self.slices)
        figure.draw_without_rendering()  # which lays out the panels that labels are to fit into
        for axes in (random, path):
            label_heights(axes)


def thin_rows(rows: Arrays, interval: float, most: int) -> dict[str, np.ndarray]:
    """Thin out the rows of looks: keep every one, or every second, fourth, … one.

    Args:
        rows: arrays of one length, among them ``step``.
        interval: steps between two looks.
        most: how many are kept at most.

    Returns:
        The rows that are kept, which depend on the steps alone: a resumed run keeps the same.

    >>> rows = {"step": np.arange(0, 90, 10)}
    >>> thin_rows(rows, 10, 4)["step"].tolist(), thin_rows(rows, 10, 9)["step"].tolist()[-1]
    ([0, 40, 80], 80)
    """
    number = np.zeros(len(rows["step"]))
    if math.isfinite(interval):
        number = rows["step"] // interval
    stride = 1
    while number[-1] // stride >= most:
        stride *= 2
    return {name: array[number % stride == 0] for name, array in rows.items()}


def evaluate_random_slices(
    point: LocalObjective, reach: float, points: int
) -> dict[str, np.ndarray]:
    """Evaluate J along two filter-normalized random directions, and on their plane.

    Args:
        point: J at some weights.
        reach: how far from them, in lengths of the weights' filters.
        points: n, of each side of the plane.

    Returns:
        J in ``lines`` [2, 2n − 1] at ``lines_at``, and in ``random`` [n, n] at ``random_at``.
    """
    directions = filter_normalized_directions(point.space, point.w)
    fine, coarse = (torch.linspace(-reach, reach, n).tolist() for n in (2 * points - 1, points))
    lines = torch.stack([evaluate_line(point, d, fine) for d in directions.T])
    plane = evaluate_plane(point, directions, coarse, coarse)
    slices = {"lines_at": fine, "lines": lines.cpu(), "random_at": coarse, "random": plane.cpu()}
    return {name: np.asarray(part, dtype=float) for name, part in slices.items()}


def evaluate_path_slice(point: LocalObjective, path: Tensor, points: int) -> dict[str, np.ndarray]:
    """Evaluate J on the plane of a path's principal directions.

    Args:
        point: J at the end of the path.
        path: weights [k, p].
        points: n, of each side of the plane.

    Returns:
        J in ``values`` [n, n] at ``x`` and ``y``, the path's coordinates ``at`` [k, 2], and the
        ``share`` of its variance along both directions [2]; nothing of a single point.
    """
    if len(path) < 2:
        return {}
    plane = principal_directions(path)
    x, y = (place_points(part, points) for part in plane.at.double().T)
    values = evaluate_plane(point, plane.axes, x, y)
    parts = {"x": x, "y": y, "values": values, "at": plane.at, "share": plane.share}
    return {name: np.asarray(part.cpu(), dtype=float) for name, part in parts.items()}


def place_points(at: Tensor, points: int) -> Tensor:
    """Place points evenly from a little before a path to a little behind it.

    Args:
        at: the path's coordinates along one direction [k].
        points: how many.

    Returns:
        Their coordinates [points].
    """
    low, high = float(at.min()), float(at.max())
    room = ROOM * (high - low) or 1.0
    return torch.linspace(low - room, high + room, points, dtype=torch.float64)


def draw_random_lines(axes: Axes, slices: Arrays) -> None:
    """Draw J along the two random directions."""
    from truerisk.show.panel import frame_axes, label_ends, set_plain_ticks
    from truerisk.show.style import BLUE, INK, ORANGE, SIZE

    styles = ((BLUE, "-", "first"), (ORANGE, "--", "second"))
    ends = []
    for values, (color, dashes, name) in zip(slices["lines"], styles, strict=True):
        axes.plot(slices["lines_at"], values, color=color, linestyle=dashes, linewidth=2.6)
        ends.append((float(values[-1]), name, color))
    finite = slices["lines"][np.isfinite(slices["lines"])]
    if len(finite) and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")
    axes.set_xlabel("along a random direction, in filter lengths", fontsize=SIZE, color=INK)
    frame_axes(axes, "J along two filter-normalized directions")
    set_plain_ticks(axes)
    label_ends(axes, ends)


def draw_random_plane(axes: Axes, slices: Arrays) -> None:
    """Draw J on the plane of the two random directions, with the weights in the middle."""
    from truerisk.show.panel import frame_axes
    from truerisk.show.style import INK, SIZE

    at = slices["random_at"]
    draw_relief(axes, at, at, slices["random"])
    axes.plot([0], [0], "s", color=INK, markersize=9, markeredgecolor="white", zorder=5)
    axes.set_xlabel("first direction", fontsize=SIZE, color=INK)
    axes.set_ylabel("second direction", fontsize=SIZE, color=INK)
    frame_axes(axes, "J on their plane; ■ the last weights")
    axes.grid(visible=False)


def draw_path_plane(axes: Axes, slices: Arrays) -> None:
    """Draw J on the plane of the path's principal directions, and the path."""
    from truerisk.show.panel import frame_axes
    from truerisk.show.style import INK, RUST, SIZE

    if "at" not in slices:
        axes.set_visible(False)
        return
    draw_relief(axes, slices["x"], slices["y"], slices["values"])
    x, y = slices["at"].T
    axes.plot(x, y, color="white", linewidth=5, zorder=3)
    axes.plot(x, y, color=RUST, linewidth=2.6, marker="o", markersize=5, zorder=4)
    axes.plot(x[:1], y[:1], "o", color="white", markeredgecolor=INK, markersize=11, zorder=5)
    axes.plot(x[-1:], y[-1:], "s", color=INK, markeredgecolor="white", markersize=9, zorder=6)
    first, second = (f"{100 * share:.3g} %" for share in slices["share"])
    axes.set_xlabel(f"first principal direction, {first} of variance", fontsize=SIZE, color=INK)
    axes.set_ylabel(f"second, {second}", fontsize=SIZE, color=INK)
    frame_axes(axes, "J on the plane of the path; ○ start, ■ end")
    axes.grid(visible=False)


def draw_relief(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> None:
    """Draw contour lines in equal ratios above the lowest value.

    Args:
        axes: the panel.
        x: places along the first direction [n].
        y: places along the second [m].
        values: of J [m, n]; those that are not finite are left blank.
    """
    from matplotlib.colors import LinearSegmentedColormap

    from truerisk.show.style import LANDSCAPE_LINES, LANDSCAPE_SHADES

    finite = values[np.isfinite(values)]
    if not len(finite) or finite.max() == finite.min():
        return
    low, extent = finite.min(), finite.max() - finite.min()
    bottom = max(1e-3 * extent, float(np.quantile(finite - low, 0.02)))
    heights = low + np.geomspace(min(bottom, 0.3 * extent), 0.999 * extent, 10)
    shades = LinearSegmentedColormap.from_list("shades", LANDSCAPE_SHADES)
    masked = np.ma.masked_invalid(values)
    edges = [low - extent, *heights, low + 2 * extent]
    axes.locator_params(nbins=5)
    axes.contourf(x, y, masked, edges, colors=shades(np.linspace(0, 1, len(edges) - 1)))
    axes.contour(x, y, masked, heights, colors=LANDSCAPE_LINES, linewidths=0.9)


def label_heights(axes: Axes) -> None:
    """Write the heights on every second contour line, but none across the panel's edge.

    Args:
        axes: the panel, where it lies in its figure; perhaps without lines.
    """
    from matplotlib.contour import ContourSet

    from truerisk.show.style import format_significant

    for lines in axes.collections:
        if not isinstance(lines, ContourSet) or lines.filled:
            continue
        heights = list(lines.levels)[::2]
        style: Any = {"fmt": lambda v: format_significant(v, 2), "fontsize": 11}
        # lines are cut for their labels, so that those to leave out are found before
        tried = axes.clabel(lines, heights, inline=False, **style)
        inside = [label.get_position() for label in tried if _fits_inside(label, axes)]
        for label in tried:
            label.remove()
        # matplotlib 3.8 looks the lines up among all heights, whichever it is told to label
        axes.clabel(lines, manual=inside, **style)


def _fits_inside(label: Text, axes: Axes) -> bool:
    """Tell whether no part of a text lies beyond the edges of a panel."""
    box, panel = label.get_window_extent(), axes.get_window_extent()
    return bool(
        panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
    )
