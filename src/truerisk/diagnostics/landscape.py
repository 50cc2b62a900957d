"""Slices through J around the weights, and the path that led to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics import figure_arrays
from truerisk.diagnostics.diagnostic import Diagnostic, Values
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

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

NUMBERS = 2**24
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
        """There is no plane in a space of one dimension."""
        if sum(p.numel() for p in recipe.model.parameters() if p.requires_grad) < 2:
            return "there is no plane through a single weight: leave it out"
        return None

    def look(self, snapshot: Snapshot) -> Values:
        """Keep the weights, if they are among those that are kept."""
        path, w = figure_arrays.locate_arrays(snapshot, f"{self.name}_path"), snapshot.point.w
        if snapshot.run.is_first_process:
            kept = figure_arrays.add_row(
                figure_arrays.read_arrays(path), snapshot.step, weights=w.cpu().numpy()
            )
            most = min(self.most, max(2, NUMBERS // len(w)))
            figure_arrays.write_arrays(path, thinned(kept, self.interval, most))
        return {}

    def finish(self, snapshot: Snapshot) -> Values:
        """Evaluate J on the planes."""
        if not snapshot.run.is_first_process or not snapshot.is_finite:
            return {}
        kept = figure_arrays.read_arrays(figure_arrays.locate_arrays(snapshot, f"{self.name}_path"))
        point = snapshot.point
        now = figure_arrays.add_row(kept, snapshot.step, weights=point.w.cpu().numpy())
        drawn = random_slices(point, self.reach, self.points)
        drawn |= path_slice(point, torch.from_numpy(now["weights"]).to(point.w), self.points)
        figure_arrays.keep_arrays(snapshot, self.name, **drawn)
        return {f"share/{i}": float(s) for i, s in enumerate(drawn.get("share", ()), 1)}

    def draw(self, history: pd.DataFrame, path: Path, title: str = "") -> Path | None:
        """Draw the slices that were kept beside the figure."""
        self.slices = figure_arrays.read_arrays(path.with_suffix(".npz"))
        return super().draw(history, path, title) if self.slices else None

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """J along the random directions, on their plane, and on the path's with the path."""
        figure.set_size_inches(7, 14)
        lines, random, path = figure.subplots(3, height_ratios=(1, 1.6, 1.6))
        draw_lines(lines, self.slices)
        draw_random(random, self.slices)
        draw_path(path, self.slices)


def thinned(kept: figure_arrays.Arrays, interval: float, most: int) -> dict[str, np.ndarray]:
    """The rows of every look, or every second, fourth, … one, so that they are at most ``most``.

    >>> rows = {"step": np.arange(0, 90, 10)}
    >>> thinned(rows, 10, 4)["step"].tolist(), thinned(rows, 10, 9)["step"].tolist()[-1]
    ([0, 40, 80], 80)
    """
    number = kept["step"] // interval if math.isfinite(interval) else np.zeros(len(kept["step"]))
    stride = 1
    while number[-1] // stride >= most:
        stride *= 2
    return {name: array[number % stride == 0] for name, array in kept.items()}


def random_slices(point: LocalObjective, reach: float, points: int) -> dict[str, np.ndarray]:
    """J along two filter-normalized directions ``lines`` [2, n], and on their plane."""
    directions = filter_normalized_directions(point.space, point.w)
    fine, coarse = (torch.linspace(-reach, reach, n).tolist() for n in (2 * points - 1, points))
    lines = torch.stack([evaluate_line(point, d, fine) for d in directions.T])
    values = evaluate_plane(point, directions, coarse, coarse)
    found = {"lines_at": fine, "lines": lines.cpu(), "random_at": coarse, "random": values.cpu()}
    return {name: np.asarray(part, dtype=float) for name, part in found.items()}


def path_slice(point: LocalObjective, path: Tensor, points: int) -> dict[str, np.ndarray]:
    """J on the plane of the path's principal directions, with the path; nothing of one point."""
    if len(path) < 2:
        return {}
    found = principal_directions(path)
    x, y = (around(part, points) for part in found.at.double().T)
    values = evaluate_plane(point, found.axes, x, y)
    parts = {"x": x, "y": y, "values": values.cpu(), "at": found.at.cpu(), "share": found.share}
    return {name: np.asarray(part.cpu(), dtype=float) for name, part in parts.items()}


def around(at: Tensor, points: int) -> Tensor:
    """Places along one direction, from a little before the path to a little behind it."""
    low, high = float(at.min()), float(at.max())
    room = ROOM * (high - low) or 1.0
    return torch.linspace(low - room, high + room, points, dtype=torch.float64)


def draw_lines(axes: Axes, slices: figure_arrays.Arrays) -> None:
    """J along the two random directions."""
    from truerisk.show.panel import frame_axes, label_ends, set_plain_ticks
    from truerisk.show.style import BLUE, INK, ORANGE, SIZE

    looks = ((BLUE, "-", "first"), (ORANGE, "--", "second"))
    ends = []
    for values, (color, dashes, name) in zip(slices["lines"], looks, strict=True):
        axes.plot(slices["lines_at"], values, color=color, linestyle=dashes, linewidth=2.6)
        ends.append((float(values[-1]), name, color))
    finite = slices["lines"][np.isfinite(slices["lines"])]
    if len(finite) and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")
    axes.set_xlabel("along a random direction, in filter lengths", fontsize=SIZE, color=INK)
    frame_axes(axes, "J along two filter-normalized directions")
    set_plain_ticks(axes)
    label_ends(axes, ends)


def draw_random(axes: Axes, slices: figure_arrays.Arrays) -> None:
    """J on the plane of the two random directions, with the weights in the middle."""
    from truerisk.show.panel import frame_axes
    from truerisk.show.style import INK, SIZE

    at = slices["random_at"]
    relief(axes, at, at, slices["random"])
    axes.plot([0], [0], "s", color=INK, markersize=9, markeredgecolor="white", zorder=5)
    axes.set_xlabel("first direction", fontsize=SIZE, color=INK)
    axes.set_ylabel("second direction", fontsize=SIZE, color=INK)
    frame_axes(axes, "J on their plane; ■ the last weights")
    axes.grid(visible=False)


def draw_path(axes: Axes, slices: figure_arrays.Arrays) -> None:
    """J on the plane of the path's principal directions, and the path."""
    from truerisk.show.panel import frame_axes
    from truerisk.show.style import INK, RUST, SIZE

    if "at" not in slices:
        axes.set_visible(False)
        return
    relief(axes, slices["x"], slices["y"], slices["values"])
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


def relief(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> None:
    """Contour lines in equal ratios above the lowest value, with their heights."""
    from matplotlib.colors import LinearSegmentedColormap

    from truerisk.show.number import format_significant
    from truerisk.show.style import LANDSCAPE_LINES, LANDSCAPE_SHADES

    finite = values[np.isfinite(values)]
    if not len(finite) or finite.max() == finite.min():
        return
    low, extent = finite.min(), finite.max() - finite.min()
    bottom = max(1e-3 * extent, float(np.quantile(finite - low, 0.02)))
    heights = low + np.geomspace(min(bottom, 0.3 * extent), 0.999 * extent, 10)
    shades = LinearSegmentedColormap.from_list("shades", LANDSCAPE_SHADES)
    shown = np.ma.masked_invalid(values)
    edges = [low - extent, *heights, low + 2 * extent]
    axes.locator_params(nbins=5)
    axes.contourf(x, y, shown, edges, colors=shades(np.linspace(0, 1, len(edges) - 1)))
    lines = axes.contour(x, y, shown, heights, colors=LANDSCAPE_LINES, linewidths=0.9)
    axes.clabel(lines, heights[::2], fmt=lambda v: format_significant(v, 2), fontsize=11)
