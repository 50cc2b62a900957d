"""A test function's value after each step of some paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from truerisk.show.panel import frame_axes, set_plain_ticks, spread_apart
from truerisk.show.style import INK, LINE_COLORS, MOST_LINES, SIZE, line_style
from truerisk.show.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from truerisk.model import Function

DEEP, HIGH = 1e-16, 10.0
"""Shares of the height of the start below and above which a path is not followed."""

DEEPEST = 1e120
"""Nor is it beyond this, as axes overflow."""


def draw_values(axes: Axes, function: Function, paths: Sequence[Trajectory]) -> None:
    """The value after each step, above the minimum and on a log scale where there is one."""
    lowest = function.minimum if function.bounded else None
    heights = [np.clip(path.value - (lowest or 0.0), -DEEPEST, DEEPEST) for path in paths]
    log = lowest is not None and any((h[np.isfinite(h)] > 0).any() for h in heights)
    for i, (path, height) in enumerate(zip(paths, heights, strict=True)):
        keep = np.isfinite(height) & ((height > 0) | (not log))
        axes.plot(path.step[keep], height[keep], **line_style(i), linewidth=2.4, zorder=3)
    scale_values(axes, heights, log)
    axes.set_xlabel("step", fontsize=SIZE, color=INK)
    sparse_ticks(axes)
    lost = [path.status == "diverged" for path in paths]
    what = "value above the minimum" if log and lowest else "value"
    frame_axes(axes, what + losses([path for path, gone in zip(paths, lost, strict=True) if gone]))
    ends = [
        (h[-1], p.label, LINE_COLORS[i % MOST_LINES])
        for i, (p, h) in enumerate(zip(paths, heights, strict=True))
        if len(h) and not lost[i]
    ]
    if len(paths) > 1:
        label_right(axes, ends)


def scale_values(axes: Axes, heights: Sequence[np.ndarray], log: bool) -> None:
    """A log scale from rounding to a little above the starts, or one for great depths."""
    start = max((float(h[0]) for h in heights if len(h)), default=1.0)
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        start = start if start > 0 else 1.0
        axes.set_ylim(max(low, DEEP * start), min(high, HIGH * start))
    elif max((np.abs(h[np.isfinite(h)]).max(initial=0.0) for h in heights), default=0.0) > 1e3:
        axes.set_yscale("symlog", linthresh=max(1.0, abs(start)))


def sparse_ticks(axes: Axes) -> None:
    """Few enough ticks on the value's axis to be read, however far it reaches."""
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
    ticks = [sign * 10.0 ** round(share * power) for sign, power in signs for share in (0.5, 1)]
    axes.yaxis.set_major_locator(
        FixedLocator(sorted({0.0, *(t for t in ticks if low <= t <= high)}))
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("e+", "e")))


def label_right(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right of the axes, level with the lines' ends and clear of each other."""
    scale = axes.yaxis.get_transform()
    low, high = (scale.transform(y) for y in axes.get_ylim())
    with np.errstate(all="ignore"):
        spots = [float((scale.transform(y) - low) / (high - low)) for y, _, _ in ends]
    spots = [min(1.0, max(0.0, s)) if np.isfinite(s) else 0.0 for s in spots]
    for spot, (_, text, color) in zip(spread_apart(spots, 0.19), ends, strict=True):
        axes.annotate(
            text, (1, spot), xycoords="axes fraction", xytext=(8, 0), textcoords="offset points",
            va="center", color=color, fontsize=SIZE - 1, fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def losses(lost: Sequence[Trajectory]) -> str:
    """Which paths leave the finite numbers."""
    if not lost:
        return ""
    names = ", ".join(path.label for path in lost) if len(lost) < 4 else f"{len(lost)} of them"
    return f"; {names} diverge{'s' if len(lost) == 1 else ''}"
