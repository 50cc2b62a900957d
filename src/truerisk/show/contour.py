"""The figure of a test function: the paths that optimizers took on it, and their values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from truerisk.core.errors import ConfigError
from truerisk.logger.label import option_name
from truerisk.show.map import DEEPEST, draw_graph, draw_map, name_paths
from truerisk.show.panel import (
    frame_axes,
    save_png,
    set_plain_ticks,
    spread_apart,
    write_name_at_right,
    write_title,
)
from truerisk.show.style import INK, LINE_COLORS, MOST_LINES, PAPER, SIZE, line_style
from truerisk.show.trajectory import (
    Trajectory,
    build_function,
    find_runs,
    identify_function,
    label_runs,
    read_trajectory,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from truerisk.model import Function
    from truerisk.result import RunResult

DEEP, HIGH = 1e-16, 10.0
"""Shares of the height of the start below and above which a path is not followed."""


def save_contour(folders: str | Path | Iterable[str | Path], path: str | Path) -> Path:
    """Draw the paths of runs of one test function, and save them as a PNG; returns its path.

    In two dimensions they lie on the function's contour lines, in one on its graph; below them is
    the value after each step. Of more dimensions there is only that.

    Args:
        folders: of runs, or of sweeps.
        path: the file; its folder is made if it is not there.

    Raises:
        ConfigError: a folder holds no run of a test function, the functions differ, or the paths
            are more than can be told apart.
    """
    if isinstance(folders, str | Path):
        folders = [folders]
    runs = find_runs(folders)
    if len({identify_function(run) for run in runs}) > 1:
        names = sorted({str(option_name(run.config, "model")) for run in runs})
        raise ConfigError(
            f"contour: the runs are of different functions ({', '.join(names)}, or one with "
            "different numbers); draw each by itself"
        )
    if len(runs) > MOST_LINES:
        raise ConfigError(
            f"contour: {len(runs)} paths cannot be told apart; name at most {MOST_LINES} runs"
        )
    return save_png(draw_runs(runs), Path(path))


def save_contours(sweep: Path) -> list[Path]:
    """Draw a sweep's paths, a figure a function; those that cannot be told apart are left out."""
    try:
        runs = find_runs([sweep])
    except ConfigError:
        return []
    groups: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        groups[identify_function(run)].append(run)
    # a run by itself has its figure in its own folder
    drawn = [group for group in groups.values() if 1 < len(group) <= MOST_LINES]
    names = [str(option_name(group[0].config, "model")) for group in drawn]
    written = []
    for i, (name, group) in enumerate(zip(names, drawn, strict=True), 1):
        stem = name
        if names.count(name) > 1:
            stem = f"{name}-{i}"
        written.append(save_png(draw_runs(group), sweep / f"{stem}.png"))
    return written


def draw_runs(runs: Sequence[RunResult]) -> Figure:
    """Draw some runs of one function."""
    function = build_function(runs[0])
    labels = label_runs([run.config for run in runs])
    paths = [read_trajectory(run, function, label) for run, label in zip(runs, labels, strict=True)]
    title = str(option_name(runs[0].config, "model")).replace("_", " ")
    if len(runs) == 1:
        title = f"{title}, {labels[0]}"
    return draw_paths(function, paths, title)


def draw_paths(function: Function, paths: Sequence[Trajectory], title: str = "") -> Figure:
    """Draw paths on a function.

    Args:
        function: in one or two dimensions it is drawn too.
        paths: with names that differ.
        title: a line above the figure.
    """
    from matplotlib.figure import Figure

    mapped = function.size <= 2 and any(len(path.points) for path in paths)
    size, ratios = (7.0, 4.4), [1.0]
    if mapped:
        size, ratios = (7.0, 8.8), [3.1, 1.0]
    figure = Figure(figsize=size, dpi=130, facecolor=PAPER, layout="constrained")
    write_title(figure, title)
    # a part of its own each: names beside one panel do not narrow the other
    parts = figure.subfigures(len(ratios), squeeze=False, height_ratios=ratios)[:, 0]
    panels = [part.subplots() for part in parts]
    draw_values(panels[-1], function, paths)
    if mapped:
        draw_function = {1: draw_graph, 2: draw_map}[function.size]
        draw_function(panels[0], function, paths)
        figure.draw_without_rendering()  # names are placed by what the layout leaves
        name_paths(panels[0], function, paths)
    return figure


def draw_values(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """Draw the value after each step, above the minimum and on a log scale where there is one.

    Args:
        axes: an empty panel.
        function: whose values they are.
        paths: in the order of their colors.
    """
    # a function without a lowest value is drawn as it is, on a linear axis
    lowest = None
    if function.bounded:
        lowest = function.minimum
    heights = [np.clip(path.value - (lowest or 0.0), -DEEPEST, DEEPEST) for path in paths]
    log = lowest is not None and any((h[np.isfinite(h)] > 0).any() for h in heights)
    for i, (path, height) in enumerate(zip(paths, heights, strict=True)):
        # rounding may bring a value to the minimum or below, where a log axis has no place
        drawn = np.isfinite(height) & ((height > 0) | (not log))
        axes.plot(path.step[drawn], height[drawn], **line_style(i), linewidth=2.4, zorder=3)
    _scale_values(axes, heights, log)
    axes.set_xlabel("step", fontsize=SIZE, color=INK)
    _set_sparse_ticks(axes)
    heading = "value"
    if log and lowest:
        heading = "value above the minimum"
    diverged = [path.label for path in paths if path.status == "diverged"]
    frame_axes(axes, heading + _name_diverged(diverged))
    if len(paths) > 1:
        ends = [
            (height[-1], path.label, LINE_COLORS[i % MOST_LINES])
            for i, (path, height) in enumerate(zip(paths, heights, strict=True))
            if len(height) and path.status != "diverged"
        ]
        _label_right(axes, ends)


def _scale_values(axes: Axes, heights: Sequence[np.ndarray], log: bool) -> None:
    """Set a log scale from rounding to a little above the starts, or one for great depths."""
    start = max((float(h[0]) for h in heights if len(h)), default=1.0)
    if log:
        axes.set_yscale("log")
        # diverging paths leave at the top, converged ones at the bottom, where rounding is drawn
        low, high = axes.get_ylim()
        if start <= 0:
            start = 1.0
        axes.set_ylim(max(low, DEEP * start), min(high, HIGH * start))
    # a path may fall by a hundred decades: shown by sign and power
    elif max((np.abs(h[np.isfinite(h)]).max(initial=0.0) for h in heights), default=0.0) > 1e3:
        axes.set_yscale("symlog", linthresh=max(1.0, abs(start)))


def _set_sparse_ticks(axes: Axes) -> None:
    """Set few enough ticks on the value's axis to be read, however far it reaches."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if axes.get_yscale() != "symlog":
        set_plain_ticks(axes)
        return
    low, high = axes.get_ylim()
    powers = np.log10(np.maximum(np.abs([low, high]), 1.0))
    signs = [
        (sign, power)
        for sign, power in zip((-1, 1), powers, strict=True)
        if power > 0.2 * powers.max()
    ]
    # two ticks a side, at the power of ten and at half of it
    ticks = [sign * 10.0 ** round(share * power) for sign, power in signs for share in (0.5, 1)]
    axes.yaxis.set_major_locator(
        FixedLocator(sorted({0.0, *(t for t in ticks if low <= t <= high)}))
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("e+", "e")))


def _label_right(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names at the right of the axes, level with the lines' ends and clear of each other."""
    scale = axes.yaxis.get_transform()
    low, high = (scale.transform(y) for y in axes.get_ylim())
    with np.errstate(all="ignore"):
        shares = [float((scale.transform(y) - low) / (high - low)) for y, _, _ in ends]
    # a value that the axis cannot show has its name at the bottom
    shares = [min(1.0, max(0.0, s)) if np.isfinite(s) else 0.0 for s in shares]
    # 0.19 of this panel's height is a line of text
    for share, (_, text, color) in zip(spread_apart(shares, 0.19), ends, strict=True):
        write_name_at_right(axes, share, text, color, SIZE - 1)


def _name_diverged(labels: Sequence[str]) -> str:
    """Say which paths leave the finite numbers."""
    if not labels:
        return ""
    if len(labels) == 1:
        return f"; {labels[0]} diverges"
    if len(labels) < 4:
        return f"; {', '.join(labels)} diverge"
    return f"; {len(labels)} of them diverge"
