"""What a run has logged, drawn over its steps: the panels that figures of diagnostics share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.show.panel import (
    label_ends,
    set_integer_axis,
    set_plain_ticks,
    set_white_edge,
    stack_panels,
)
from truerisk.show.style import BLUE, DASHES, FAINT, INCHES, INK, RUST, SIZE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (INK, RUST, BLUE, FAINT)
"""Of the lines of one panel."""

NAME = 19
"""Letters of a layer's name; of a longer one the end is shown."""


def pivot_history(history: pd.DataFrame, name: str) -> pd.DataFrame:
    """Select what one diagnostic logged.

    Args:
        history: of a run, with the columns ``step``, ``name`` and ``value``.
        name: of the diagnostic.

    Returns:
        A row a step and a column a name, without the diagnostic's, both in order.
    """
    import pandas as pd

    columns: dict[str, dict[int, float]] = {}
    # not pandas' own pivot, which sorts the columns: their order is that of the layers
    for step, full, value in zip(history.step, history.name, history.value, strict=True):
        if full.startswith(f"{name}/"):
            columns.setdefault(full.removeprefix(f"{name}/"), {}).setdefault(step, value)
    return pd.DataFrame(columns).sort_index()


def select_columns(table: pd.DataFrame, what: str) -> dict[str, pd.Series]:
    """Select the columns ``what/<layer>``, by layer, in the model's order."""
    prefix = f"{what}/"
    names = [name for name in table.columns if name.startswith(prefix)]
    return {name.removeprefix(prefix): table[name].dropna() for name in names}


def add_panels(
    figure: Figure,
    table: pd.DataFrame,
    headings: Sequence[str],
    ratios: Sequence[float] = (3, 1.3),
) -> list[Axes]:
    """Put panels one above the other, over the steps that were looked at.

    Args:
        figure: an empty one.
        table: a row a step.
        headings: a panel each.
        ratios: of their heights; those that are too many are not used.
    """
    figure.set_layout_engine(None)  # matplotlib's own layout takes longer than drawing the lines
    axes = stack_panels(figure, headings, ratios)
    set_step_axis(axes[-1], table)
    return axes


def set_step_axis(axes: Axes, table: pd.DataFrame) -> None:
    """Let the horizontal axis be the steps that were looked at."""
    set_integer_axis(axes, table.index.min(), table.index.max(), "step")


def pick_shade(share: float) -> Any:
    """Pick a color from dark blue (0) to light orange (1), in grey from dark to light."""
    from matplotlib import colormaps

    return colormaps["plasma"](0.02 + 0.78 * share)


def set_scale(axes: Axes, curves: Sequence[pd.Series], from_zero: bool = False) -> None:
    """Choose a linear scale, or a logarithmic one for positive values over a factor of ten.

    Args:
        axes: the panel.
        curves: what is drawn in it.
        from_zero: whether the scale is linear and begins at 0.
    """
    values = np.concatenate([np.empty(0), *(v.to_numpy(dtype=float) for v in curves)])
    top = values.max(initial=0.0)
    if from_zero:
        axes.set_ylim(0, 1.08 * top or 1)
    elif len(values) and values.min() > 0 and top > 10 * values.min():
        axes.set_yscale("log")


def draw_line(axes: Axes, values: pd.Series, from_zero: bool = False) -> None:
    """Draw one number over the steps, by itself in its panel; see `draw_lines`."""
    draw_lines(axes, {"": values}, from_zero)


def draw_lines(axes: Axes, curves: Mapping[str, pd.Series], from_zero: bool = False) -> None:
    """Draw a few numbers over the steps, each with its name at the right.

    Args:
        axes: the panel.
        curves: at most four, by the names that are written.
        from_zero: whether the scale is linear and begins at 0.
    """
    curves = _finite_curves(curves)
    set_scale(axes, list(curves.values()), from_zero)
    styles = list(zip(COLORS, DASHES, strict=True))[: len(curves)]
    for values, (color, dash) in zip(curves.values(), styles, strict=True):
        _plot_series(axes, values, color=color, linestyle=dash, linewidth=2.4)
    set_plain_ticks(axes)
    pairs = zip(curves.items(), styles, strict=True)
    label_ends(axes, [(v.iloc[-1], name, color) for (name, v), (color, _) in pairs if name])


def draw_band(axes: Axes, low: pd.Series, high: pd.Series) -> None:
    """Shade an interval over the steps, below the line that is drawn next.

    Args:
        axes: the panel.
        low: the lower ends.
        high: the upper ends.
    """
    known = np.isfinite((low + high).to_numpy(dtype=float))
    # of no width, it would only mark the line's edge
    if known.any() and bool((high > low)[known].any()):
        axes.fill_between(low.index[known], low[known], high[known], color=INK, alpha=0.12, lw=0)


def draw_layers(axes: Axes, table: pd.DataFrame, what: str, from_zero: bool = False) -> None:
    """Draw a line a layer, from dark for the first to light for the last, named at the right.

    Args:
        axes: the panel.
        table: a row a step, with columns ``what/<layer>``.
        what: the number that is drawn.
        from_zero: whether the scale is linear and begins at 0.
    """
    curves = _finite_curves(select_columns(table, what))
    set_scale(axes, list(curves.values()), from_zero)
    names, last = shorten_names(list(curves)), max(len(curves) - 1, 1)
    for depth, values in enumerate(curves.values()):
        _plot_series(axes, values, color=pick_shade(depth / last), linewidth=2.2)
    set_plain_ticks(axes)
    room = max(2, int(axes.get_position().height * INCHES[1] * 72 / (1.3 * SIZE)))
    labelled = np.linspace(0, len(curves) - 1, min(len(curves), room)).round().astype(int).tolist()
    ends = [values.iloc[-1] for values in curves.values()]
    label_ends(axes, [(ends[i], names[i], pick_shade(i / last)) for i in labelled])


def draw_level(axes: Axes, value: float, name: str = "") -> None:
    """Draw a dotted line at a height; nothing where it is far from the curves.

    Args:
        axes: the panel, with its curves.
        value: the height.
        name: what is written on it.
    """
    low, high = axes.get_ylim()
    if not low <= value <= high:
        return
    axes.axhline(value, color=FAINT, linestyle=":", linewidth=1.6, zorder=1)
    bottom, at, top = axes.yaxis.get_transform().transform([low, value, high])
    above = at < (bottom + top) / 2
    shift, align = {True: (3, "bottom"), False: (-3, "top")}[bool(above)]
    written = axes.annotate(
        name, (0, value), xycoords=axes.get_yaxis_transform(), xytext=(6, shift),
        textcoords="offset points", color=INK, fontsize=SIZE - 3, zorder=6, va=align,
    )  # fmt: skip
    set_white_edge(written)


def _plot_series(axes: Axes, values: pd.Series, **style: Any) -> None:
    marker = "o" if len(values) < 12 else "None"  # few points are seen as such
    axes.plot(values.index, values.to_numpy(), markersize=6, marker=marker, **style)


def _finite_curves(curves: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """Drop what cannot be drawn: values that are not finite, and curves without any other."""
    finite = {k: v[np.isfinite(v.to_numpy(dtype=float))] for k, v in curves.items()}
    return {name: values for name, values in finite.items() if len(values)}


def shorten_names(layers: Sequence[str]) -> list[str]:
    """Drop the last part of layers' names if it tells none apart, and the start of long ones.

    >>> shorten_names(["hidden.0.linear", "output"]), shorten_names(["a.encoder.layers.0.linear"])
    (['hidden.0', 'output'], ['a.encoder.layers.0'])
    """
    outer = [layer.rpartition(".")[0] or layer for layer in layers]
    names = outer if len(set(outer)) == len(layers) else layers
    return [name if len(name) <= NAME else f"…{name[-NAME:]}" for name in names]
