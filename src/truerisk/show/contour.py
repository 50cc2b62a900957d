"""The figure of a test function: its contour lines and the paths that optimizers took on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truerisk.core.errors import ConfigError
from truerisk.logger.label import option_name
from truerisk.show.map import draw_graph, draw_map, name_paths
from truerisk.show.panel import save_png
from truerisk.show.style import INK, MOST_LINES, SIZE
from truerisk.show.trajectory import (
    Trajectory,
    function_of,
    identity,
    labels,
    runs_in,
    trajectory,
)
from truerisk.show.values import draw_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from truerisk.model import Function
    from truerisk.result import RunResult


def contour(folders: Iterable[str | Path], path: str | Path) -> Path:
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
    runs = runs_in([folders] if isinstance(folders, str | Path) else folders)
    if len({identity(run) for run in runs}) > 1:
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


def contours(sweep: Path) -> list[Path]:
    """Draw a sweep's paths, a figure a function; those that cannot be told apart are left out."""
    try:
        runs = runs_in([sweep])
    except ConfigError:
        return []
    alike: dict[str, list[RunResult]] = {}
    for run in runs:
        alike.setdefault(identity(run), []).append(run)
    drawn = [
        (str(option_name(g[0].config, "model")), g)
        for g in alike.values()
        if 1 < len(g) <= MOST_LINES
    ]
    names = [name for name, _ in drawn]
    stems = [n if names.count(n) == 1 else f"{n}-{i}" for i, n in enumerate(names, 1)]
    return [
        save_png(draw_runs(group), sweep / f"{stem}.png")
        for stem, (_, group) in zip(stems, drawn, strict=True)
    ]


def draw_runs(runs: Sequence[RunResult]) -> Figure:
    """The figure of some runs of one function."""
    function = function_of(runs[0])
    names = labels([run.config for run in runs])
    paths = [trajectory(run, function, name) for run, name in zip(runs, names, strict=True)]
    name = str(option_name(runs[0].config, "model")).replace("_", " ")
    return draw(function, paths, name if len(runs) > 1 else f"{name}, {names[0]}")


def draw(function: Function, paths: Sequence[Trajectory], title: str = "") -> Figure:
    """Draw paths on a function."""
    from matplotlib.figure import Figure

    mapped = function.size <= 2 and any(len(path.points) for path in paths)
    size = (7.0, 8.8) if mapped else (7.0, 4.4)
    figure = Figure(figsize=size, dpi=130, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=SIZE + 2, fontweight="bold", color=INK)
    ratios = [3.1, 1] if mapped else [1]
    parts = figure.subfigures(len(ratios), squeeze=False, height_ratios=ratios)[:, 0]
    panels = [part.subplots() for part in parts]  # names beside one do not narrow the other
    draw_values(panels[-1], function, paths)
    if mapped:
        drawn = draw_map if function.size == 2 else draw_graph
        drawn(panels[0], function, paths)
        figure.draw_without_rendering()  # names are placed by what the layout leaves
        name_paths(panels[0], function, paths)
    return figure
