"""The figure of a run: its risks over the epochs, and the learning rate below them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.show.number import with_stderr
from truerisk.show.panel import (
    FAINT,
    INCHES,
    INK,
    SIZE,
    label_ends,
    lay_out,
    over,
    plain_ticks,
    stacked,
)
from truerisk.show.png import save

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": "#e08a1e", "linestyle": (0, (4, 1.6)), "linewidth": 2.6},
    "val": {"color": "#0b4f8a", "linestyle": "-", "linewidth": 2.8},
}
LABELS = {"train": "train", "val": "validation"}


class Curve(NamedTuple):
    """A number measured at several epochs, with standard errors where there are any (else 0)."""

    epoch: np.ndarray
    value: np.ndarray
    stderr: np.ndarray

    @property
    def finite(self) -> Curve:
        """The part that can be drawn."""
        keep = np.isfinite(self.value)
        return Curve(*(part[keep] for part in self))

    @property
    def low(self) -> np.ndarray:
        """The lower edge of the band."""
        return self.value - self.stderr

    @property
    def high(self) -> np.ndarray:
        """The upper edge of the band."""
        return self.value + self.stderr


def curve(history: pd.DataFrame, name: str, keep: str = "first") -> Curve:
    """The series ``name`` out of a tidy history, one value an epoch.

    The first value of an epoch counts for risks: what is measured once more at the end, on other
    samples or at other weights, is not part of the curve.
    """
    rows = history[history.name.isin([name, f"{name}/stderr"]) & history.epoch.notna()]
    wide = rows.drop_duplicates(["name", "epoch"], keep=keep).pivot(
        index="epoch", columns="name", values="value"
    )
    wide = wide.reindex(columns=[name, f"{name}/stderr"]).sort_index()
    epoch = wide.index.to_numpy(dtype=float)
    value, stderr = wide.to_numpy(dtype=float).T if len(wide) else (epoch, epoch)
    return Curve(epoch, value, np.where(np.isfinite(stderr), stderr, 0.0))


def wants_log(curves: list[Curve]) -> bool:
    """Whether the values are positive and span more than a factor of ten."""
    seen = np.concatenate([np.empty(0), *(c.finite.value for c in curves)])
    return bool(len(seen)) and bool(seen.min() > 0) and bool(seen.max() > 10 * seen.min())


def band(axes: Axes, line: Curve, style: dict[str, Any]) -> None:
    """A curve, its markers where there are few of them, and one standard error either way."""
    line = line.finite
    marker = "o" if len(line.epoch) < 12 else "None"
    axes.plot(line.epoch, line.value, marker=marker, markersize=7, **style, zorder=3)
    low = np.maximum(line.low, line.value / 10) if axes.get_yscale() == "log" else line.low
    axes.fill_between(line.epoch, low, line.high, color=style["color"], alpha=0.22, linewidth=0)


def note(axes: Axes, text: str, epoch: float, height: float, right: bool) -> None:
    """A text beside an epoch, at a share of the axes' height, readable on whatever lies below."""
    from matplotlib.patheffects import withStroke

    written = axes.annotate(
        text, (epoch, height), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
        xytext=(-9 if right else 9, 0), va="top", ha="right" if right else "left", color=INK,
        fontsize=SIZE - 1, linespacing=1.35, zorder=6,
    )  # fmt: skip
    written.set_path_effects([withStroke(linewidth=4, foreground="white")])


def mark_best(axes: Axes, best: float, risk: float) -> None:
    """The epoch with the lowest validation risk: a ring on the curve, and a thin line."""
    axes.axvline(best, color=FAINT, linewidth=1.4, linestyle=":", zorder=1)
    axes.plot(
        [best], [risk], linestyle="", marker="o", markersize=13, markerfacecolor="white",
        markeredgecolor=STYLES["val"]["color"], markeredgewidth=2.6, zorder=4,
    )  # fmt: skip


def mark_test(axes: Axes, epoch: float, test: Curve) -> None:
    """The test risk with its standard error, as a point at one epoch."""
    axes.errorbar(
        [epoch], test.value[-1:], test.stderr[-1:], color=INK, marker="D", markersize=6.5,
        capsize=8, elinewidth=2.2, capthick=2.2, linestyle="", zorder=5,
    )  # fmt: skip


def draw_risks(axes: Axes, history: pd.DataFrame) -> None:
    """Train and validation risk with bands, the best epoch, and the test risk there."""
    every = {key: curve(history, f"risk/{key}") for key in STYLES}
    curves = {key: line.finite for key, line in every.items() if len(line.finite.epoch)}
    test = curve(history, "risk/test", keep="last").finite
    axes.set_yscale("log" if wants_log([*curves.values(), test]) else "linear")
    for key, line in curves.items():
        band(axes, line, STYLES[key])
    middle = np.mean(axes.get_xlim())
    reference = curves.get("val", test)
    if len(reference.epoch):
        best, risk = min(zip(reference.epoch, reference.value, strict=True), key=lambda p: p[1])
        text = []
        if "val" in curves:
            mark_best(axes, best, risk)
            text.append(f"best: epoch {best:g}")
        if len(test.epoch):
            mark_test(axes, best, test)
            text.append(f"◆ test {with_stderr(test.value[-1], test.stderr[-1] or None)}")
        note(axes, "\n".join(text), best, 1.0, right=best > middle)
    say_what_is_missing(axes, every)
    label_ends(axes, [(c.value[-1], LABELS[k], STYLES[k]["color"]) for k, c in curves.items()])


def say_what_is_missing(axes: Axes, every: Mapping[str, Curve]) -> None:
    """Name the epoch from which the risks are not finite, or that there is none to draw."""
    lost = [epoch for c in every.values() for epoch in c.epoch[~np.isfinite(c.value)]]
    if lost:
        right = min(lost) > np.mean(axes.get_xlim())
        note(axes, f"not finite\nat epoch {min(lost):g}", min(lost), 0.6, right)
    elif not any(len(line.epoch) for line in every.values()):
        note(axes, "no risk was measured", axes.get_xlim()[0], 0.6, right=False)


def draw_rates(axes: Axes, rates: Mapping[str, Curve]) -> None:
    """The learning rates of the parameter groups, those that differ."""
    lines = {name: line.finite for name, line in rates.items() if len(line.finite.epoch)}
    distinct: dict[bytes, str] = {}
    for name, line in lines.items():
        distinct.setdefault(line.value.tobytes(), name)
    axes.set_yscale("log" if wants_log([lines[n] for n in distinct.values()]) else "linear")
    for name, style in zip(distinct.values(), cycle(["-", (0, (4, 1.6)), ":"]), strict=False):
        line = lines[name]
        marker = "o" if len(line.epoch) == 1 else "None"
        axes.plot(line.epoch, line.value, marker=marker, color=INK, linewidth=2, linestyle=style)
    if axes.get_yscale() == "linear":
        top = max((line.value.max() for line in lines.values()), default=0.0)
        axes.set(ylim=(0, 1.1 * top or 1), yticks=[0, top])
    if len(distinct) > 1:
        # where lines end level, the one that was higher gets the higher label
        names = sorted(distinct.values(), key=lambda n: lines[n].value.max())
        ends = [(lines[n].value[-1], f"group {n.partition('/')[2]}", INK) for n in names]
        label_ends(axes, ends)


def draw(history: pd.DataFrame, title: str = "") -> Figure:
    """Draw the figure of a run from its tidy history (columns step, epoch, name, value)."""
    from matplotlib.figure import Figure

    names = sorted({name for name in history.name if name.startswith("lr/")})
    rates = {name: curve(history, name, keep="last") for name in names}
    figure = Figure(figsize=INCHES, dpi=150, facecolor="white")
    axes = stacked(figure, ["risk", "learning rate"] if rates else ["risk"], [4, 1])
    epochs = history.epoch.dropna()
    first, last = (0, 0) if epochs.empty else (epochs.min(), epochs.max())
    over(axes[-1], first, last, "epoch")
    draw_risks(axes[0], history)
    if rates:
        draw_rates(axes[1], rates)
    for panel in axes:
        plain_ticks(panel)
    figure.suptitle(title, x=0.01, ha="left", fontsize=SIZE + 2, fontweight="bold", color=INK)
    lay_out(figure)
    return figure


def risk_figure(history: pd.DataFrame, path: Path, title: str = "") -> Path:
    """Draw a run's risks over its epochs and save them as a PNG; returns its path.

    Train and validation risk have bands of one standard error; the epoch with the lowest
    validation risk is marked, and the test risk, measured at its weights, stands there with its
    standard error. The panel below shows the learning rate.

    Args:
        history: columns step, epoch, name, value, as ``read_history`` gives them.
        path: the file; its folder is made if it is not there.
        title: a line above the figure.
    """
    return save(draw(history, title), path)
