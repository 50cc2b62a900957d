"""The figure of a run: its risks over the epochs, and the learning rate below them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.risk.intervals import find_quantile
from truerisk.show.panel import (
    label_ends,
    lay_out,
    new_figure,
    save_png,
    set_integer_axis,
    set_plain_ticks,
    set_white_edge,
    stack_panels,
)
from truerisk.show.style import FAINT, INK, RISK_STYLES, SIZE, format_bounds
from truerisk.task import get_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from omegaconf import DictConfig
    from pandas import DataFrame

    from truerisk.logger.history import MetricRows
    from truerisk.result import RunResult
    from truerisk.risk.measured import Measured

RISK_LABELS = {"train": "train", "val": "validation"}
HIGH = 0.6
"""A line above this share of the axes' height would cross a note at their top."""
MOST_COUNTS = 20
"""Classes of a confusion matrix whose counts are written into it."""


class EpochCurve(NamedTuple):
    """A number measured at several epochs, with standard errors where there are any (else 0).

    ``freedom`` is that of the standard errors: infinite where the samples were not counted.
    """

    epoch: np.ndarray
    value: np.ndarray
    stderr: np.ndarray
    freedom: float = math.inf

    @property
    def finite_part(self) -> EpochCurve:
        """The part that can be drawn."""
        finite = np.isfinite(self.value)
        kept = self.epoch[finite], self.value[finite], self.stderr[finite]
        return EpochCurve(*kept, self.freedom)

    @property
    def reach(self) -> np.ndarray:
        """Half the width of the 95 % intervals."""
        return find_quantile(self.freedom) * self.stderr

    @property
    def low(self) -> np.ndarray:
        """The lower edge of the band."""
        return self.value - self.reach

    @property
    def high(self) -> np.ndarray:
        """The upper edge of the band."""
        return self.value + self.reach


def read_curve(
    history: MetricRows | DataFrame, name: str, keep: str = "first", size: int | None = None
) -> EpochCurve:
    """Read the series ``name`` out of a tidy history, one value an epoch.

    Args:
        history: columns step, epoch, name, value.
        name: of the metric; its standard errors are those under ``NAME/stderr``.
        keep: which of several values of an epoch counts, ``first`` or ``last``. For risks the first
            does: what is measured once more at the end, on other samples or at other weights, is
            not part of the curve.
        size: how many samples, or groups of them, the standard errors are of; None where unknown.
    """
    epoch, value = pick_values(history, name, keep)
    known = dict(zip(*pick_values(history, f"{name}/stderr", keep), strict=True))
    stderr = np.array([known.get(e, np.nan) for e in epoch])
    freedom = math.inf if size is None or size < 2 else size - 1
    return EpochCurve(epoch, value, np.where(np.isfinite(stderr), stderr, 0.0), freedom)


def pick_values(
    history: MetricRows | DataFrame, name: str, keep: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs [n], ascending, and values [n] of a metric, one an epoch."""
    epochs = read_epochs(history)
    rows = np.flatnonzero((np.asarray(history.name, dtype=object) == name) & np.isfinite(epochs))
    if keep == "last":
        rows = rows[::-1]
    # numpy finds the first row of each
    epoch, first = np.unique(epochs[rows], return_index=True)
    return epoch, np.asarray(history.value, dtype=float)[rows[first]]


def read_epochs(history: MetricRows | DataFrame) -> np.ndarray:
    """Return the epochs [n] as floats; nan where there is none."""
    column: Any = history.epoch
    # pandas has a missing number of its own
    return column if isinstance(column, np.ndarray) else column.to_numpy(float, na_value=np.nan)


def choose_scale(curves: Iterable[EpochCurve]) -> str:
    """Choose a log scale where values are positive and span more than a factor of ten."""
    values = np.concatenate([np.empty(0), *(curve.finite_part.value for curve in curves)])
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        return "log"
    return "linear"


def choose_marker(values: Any, fewer_than: int = 12) -> str:
    """Choose markers where there are fewer values than ``fewer_than``, and none elsewhere.

    Args:
        values: of a line.
        fewer_than: how many are few.
    """
    return "o" if len(values) < fewer_than else "None"


def draw_band(axes: Axes, curve: EpochCurve, style: dict[str, Any]) -> None:
    """Draw a curve, its markers where there are few, and its 95 % intervals.

    Args:
        axes: with its scale set.
        curve: what is finite of it is drawn.
        style: color, dashes and width of the line.
    """
    curve = curve.finite_part
    axes.plot(
        *(curve.epoch, curve.value), marker=choose_marker(curve.epoch), markersize=7,
        **style, zorder=3,
    )  # fmt: skip
    low = curve.low
    if axes.get_yscale() == "log":
        # a band that reaches 0 has no lower edge on a log axis
        low = np.maximum(low, curve.value / 10)
    axes.fill_between(curve.epoch, low, curve.high, color=style["color"], alpha=0.22, linewidth=0)


def write_note(axes: Axes, text: str, epoch: float, height: float, right: bool) -> None:
    """Write a text beside an epoch, readable on whatever lies below it.

    Args:
        axes: over epochs, or over whatever else ``epoch`` is a number of.
        text: one line or more.
        epoch: the place.
        height: its top, as a share of the axes' height.
        right: end left of the place, as there is no room right of it.
    """
    side, align = 9, "left"
    if right:
        side, align = -9, "right"
    written = axes.annotate(
        text, (epoch, height), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
        xytext=(side, 0), va="top", ha=align, color=INK,
        fontsize=SIZE - 1, linespacing=1.35, zorder=6,
    )  # fmt: skip
    set_white_edge(written)


def mark_best(axes: Axes, epoch: float, risk: float) -> None:
    """Mark the epoch whose weights are the best: a ring on the curve, and a thin line.

    Args:
        axes: over epochs.
        epoch: the best one.
        risk: the validation risk there.
    """
    axes.axvline(epoch, color=FAINT, linewidth=1.4, linestyle=":", zorder=1)
    axes.plot(
        [epoch], [risk], linestyle="", marker="o", markersize=13, markerfacecolor="white",
        markeredgecolor=RISK_STYLES["val"]["color"], markeredgewidth=2.6, zorder=4,
    )  # fmt: skip


def mark_test(axes: Axes, epoch: float, test: EpochCurve) -> None:
    """Mark the test risk with its 95 % interval, as a point at one epoch.

    Args:
        axes: over epochs.
        epoch: where the point stands.
        test: its last number is shown.
    """
    axes.errorbar(
        [epoch], test.value[-1:], test.reach[-1:], color=INK, marker="D", markersize=6.5,
        capsize=8, elinewidth=2.2, capthick=2.2, linestyle="", zorder=5,
    )  # fmt: skip


def draw_risks(
    axes: Axes,
    history: MetricRows | DataFrame,
    sizes: Mapping[str, int | None] | None = None,
    kept: int | None = None,
) -> None:
    """Draw train and validation risk with bands, the best epoch, and the test risk there.

    Args:
        axes: an empty panel over epochs.
        history: columns step, epoch, name, value.
        sizes: of the samples that risks were measured on, by name.
        kept: the epoch whose weights were kept; None where none was yet.
    """
    sizes = sizes or {}
    # after an epoch as many training samples are measured as validation has, unless told otherwise
    measured = {
        key: read_curve(history, f"risk/{key}", size=sizes.get("risk/val")) for key in RISK_STYLES
    }
    curves = {key: curve.finite_part for key, curve in measured.items()}
    curves = {key: curve for key, curve in curves.items() if len(curve.epoch)}
    test = read_curve(history, "risk/test", "last", sizes.get("risk/test")).finite_part
    # of the validation set, whose curve it is held against
    constant = read_curve(history, "constant/risk/val", keep="last").finite_part
    axes.set_yscale(choose_scale([*curves.values(), test, constant]))
    for key, curve in curves.items():
        draw_band(axes, curve, RISK_STYLES[key])
    if len(constant.epoch):
        level = constant.value[-1]
        axes.axhline(level, color=FAINT, linewidth=1.4, linestyle=(0, (5, 2)), zorder=1)
    # a note stands on the side with more room
    middle = np.mean(axes.get_xlim())
    reference = curves.get("val", test)
    if len(reference.epoch):
        risks: dict[float, float] = dict(zip(reference.epoch, reference.value, strict=True))
        best = min(risks, key=risks.__getitem__)
        # a run that follows a metric may have kept another than that of the lowest risk
        if kept is not None and kept in risks:
            best = kept
        lines = []
        if "val" in curves:
            mark_best(axes, best, risks[best])
            lines.append(f"best: epoch {best:g}")
            # the best of many looks too good, but not where none improved on the initial weights
            if best:
                lines.append("(optimistic)")
        if len(test.epoch):
            # the test risk is measured with the best weights, whatever epoch training ended at
            mark_test(axes, best, test)
            risk, low, high = (float(part[-1]) for part in (test.value, test.low, test.high))
            # in two lines, as a note wider than half the panel runs over the axis
            lines.append(f"◆ test {format_bounds(risk, low, high)}".replace(" [", "\n["))
        top = find_top(axes, constant.value[-1:].tolist())
        write_note(axes, "\n".join(lines), best, top, right=bool(best > middle))
    note_missing(axes, measured)
    ends = [(c.value[-1], RISK_LABELS[k], RISK_STYLES[k]["color"]) for k, c in curves.items()]
    if len(constant.epoch):
        ends.append((level, "best constant", FAINT))
    label_ends(axes, ends)


def find_top(axes: Axes, levels: Sequence[float]) -> float:
    """Find how high a note may stand: below a line across that would strike it out.

    Args:
        axes: with all its curves.
        levels: where lines run across.

    Returns:
        The top of the note, as a share of the axes' height.
    """
    axes.get_ylim()  # limits are found when they are asked for
    to_share = axes.transData - axes.transAxes
    shares = [float(to_share.transform((0, level))[1]) for level in levels]
    return min([1.0, *(share - 0.01 for share in shares if share > HIGH)])


def note_missing(axes: Axes, measured: Mapping[str, EpochCurve]) -> None:
    """Write from which epoch on the risks are not finite, or that there is none to draw.

    Args:
        axes: over epochs.
        measured: the curves, finite or not.
    """
    lost = [epoch for c in measured.values() for epoch in c.epoch[~np.isfinite(c.value)]]
    if lost:
        right = min(lost) > np.mean(axes.get_xlim())
        write_note(axes, f"not finite\nat epoch {min(lost):g}", min(lost), 0.6, right)
    elif not any(len(curve.epoch) for curve in measured.values()):
        write_note(axes, "no risk was measured", axes.get_xlim()[0], 0.6, right=False)


def draw_rates(axes: Axes, rates: Mapping[str, EpochCurve]) -> None:
    """Draw the learning rates of the parameter groups, those that differ.

    Args:
        axes: an empty panel over epochs.
        rates: by ``lr/GROUP``.
    """
    # groups that share a schedule are one line
    lines = {name: rate.finite_part for name, rate in rates.items() if len(rate.finite_part.epoch)}
    distinct: dict[bytes, str] = {}
    for name, line in lines.items():
        distinct.setdefault(line.value.tobytes(), name)
    axes.set_yscale(choose_scale(lines[name] for name in distinct.values()))
    for name, dashes in zip(distinct.values(), cycle(["-", (0, (4, 1.6)), ":"]), strict=False):
        line = lines[name]
        marker = choose_marker(line.epoch, fewer_than=2)
        axes.plot(line.epoch, line.value, marker=marker, color=INK, linewidth=2, linestyle=dashes)
    if axes.get_yscale() == "linear":
        top = max((line.value.max() for line in lines.values()), default=0.0)
        # a rate that is 0 throughout still needs an axis
        axes.set(ylim=(0, 1.1 * top or 1), yticks=[0, top])
    if len(distinct) > 1:
        # where lines end level, the one that was higher gets the higher label
        names = sorted(distinct.values(), key=lambda n: lines[n].value.max())
        ends = [(lines[n].value[-1], f"group {n.partition('/')[2]}", INK) for n in names]
        label_ends(axes, ends)


def draw_run(
    history: MetricRows | DataFrame,
    title: str = "",
    sizes: Mapping[str, int | None] | None = None,
    kept: int | None = None,
) -> Figure:
    """Draw the figure of a run.

    Args:
        history: columns step, epoch, name, value.
        title: a line above the figure.
        sizes: of the samples that risks were measured on, by name.
        kept: the epoch whose weights were kept; None where none was yet.
    """
    names = sorted({name for name in history.name if name.startswith("lr/")})
    rates = {name: read_curve(history, name, keep="last") for name in names}
    headings = ["risk"]
    if any(name.startswith("risk/") and name.endswith("/stderr") for name in history.name):
        headings = ["risk, with 95 % intervals"]
    if rates:
        headings.append("learning rate")
    figure = new_figure(title)
    axes = stack_panels(figure, headings, [4, 1])
    epochs = read_epochs(history)
    epochs, first, last = epochs[np.isfinite(epochs)], 0, 0
    if len(epochs):
        first, last = int(epochs.min()), int(epochs.max())
    set_integer_axis(axes[-1], first, last, "epoch")
    draw_risks(axes[0], history, sizes, kept)
    if rates:
        draw_rates(axes[1], rates)
    for panel in axes:
        set_plain_ticks(panel)
    lay_out(figure)
    return figure


def risk_figure(
    history: MetricRows | DataFrame,
    path: Path,
    title: str = "",
    summary: Mapping[str, Measured] | None = None,
) -> Path:
    """Draw a run's risks over its epochs and save them as a PNG; returns its path.

    Train and validation risk have bands, Student's 95 % intervals; the epoch whose
    weights were kept is marked (until there is one, that of the lowest validation risk), and the
    test risk, measured at them, stands there with its own. The panel below shows the learning rate.

    Args:
        history: columns step, epoch, name, value, as ``read_metric_rows`` gives them.
        path: the file; its folder is made if it is not there.
        title: a line above the figure.
        summary: of the run, which knows its epoch and how many samples it was measured on.
    """
    summary = summary or {}
    sizes = {name: measured.size for name, measured in summary.items()}
    epochs = [summary[name].epoch for name in ("risk/val", "risk/test") if name in summary]
    return save_png(draw_run(history, title, sizes, next(iter(epochs), None)), path)


def matrix_figure(tables: Mapping[str, Any], names: Sequence[str], path: Path, title: str) -> Path:
    """Draw a confusion matrix: true classes down, predicted across, shares of rows as shades.

    Args:
        tables: counts [true, predicted] by split; the test set's are drawn, else validation's.
        names: of the classes.
        path: the file.
        title: a line above it.
    """
    split = next(name for name in ("test", "val", "train") if name in tables)
    counts = np.array(tables[split], dtype=float)
    rows = counts.sum(1, keepdims=True)
    # a class without samples has no shares
    shares = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    figure = new_figure(f"{title}: {RISK_LABELS.get(split, split)} samples", layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted", fontsize=SIZE)
    axes.set_ylabel("true", fontsize=SIZE)
    size = min(SIZE - 1, 190 / max(len(names), 1))
    labels = [name if len(name) <= 12 else f"{name[:11]}…" for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=size, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(names) <= MOST_COUNTS:
        for (i, k), count in np.ndenumerate(counts):
            color = "white" if shares[i, k] > 0.55 else INK
            axes.text(k, i, f"{count:g}", ha="center", va="center", fontsize=size, color=color)
    return save_png(figure, path)


def draw_result(result: RunResult, config: DictConfig) -> None:
    """Draw the figures of a run into its folder: risks or a path, tables, and its diagnostics'.

    Args:
        result: of the run, as far as it has come.
        config: the run's configuration.
    """
    from truerisk.assemble import build_diagnostics
    from truerisk.logger.history import read_metric_rows
    from truerisk.logger.label import recipe_name
    from truerisk.show.contour import save_contour

    title = recipe_name(config)
    if not get_task(result.task).has_samples:
        save_contour([result.folder], result.figure_file)
    elif len(rows := read_metric_rows(result.folder)):
        risk_figure(rows, result.figure_file, title, result.summary)
    for name, tables in result.run.tables().items():
        classes = result.run.metadata()["table_classes"][name]
        matrix_figure(tables, classes, result.run.figures / f"{name}.png", title)
    for name, diagnostic in build_diagnostics(config, given=False).items():
        if hasattr(diagnostic, "draw"):  # another callback draws nothing
            diagnostic.draw(result.history, result.run.figures / f"{name}.png", title)
