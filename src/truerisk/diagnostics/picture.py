"""What the figures of diagnostics have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.show.panel import (
    label_ends,
    new_figure,
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


def table_of(history: pd.DataFrame, name: str) -> pd.DataFrame:
    """What one diagnostic logged: a row a step, a column a name without the prefix, in order."""
    import pandas as pd

    found: dict[str, dict[int, float]] = {}
    for step, full, value in zip(history.step, history.name, history.value, strict=True):
        if full.startswith(f"{name}/"):
            found.setdefault(full.removeprefix(f"{name}/"), {}).setdefault(step, value)
    return pd.DataFrame(found).sort_index()


def columns(table: pd.DataFrame, what: str) -> dict[str, pd.Series]:
    """The columns ``what/<layer>``, by layer, in the model's order."""
    prefix = f"{what}/"
    names = [name for name in table.columns if name.startswith(prefix)]
    return {name.removeprefix(prefix): table[name].dropna() for name in names}


def blank(title: str = "") -> Figure:
    """An empty figure in the style of all."""
    return new_figure(title, layout="constrained")


def panels(
    figure: Figure,
    table: pd.DataFrame,
    headings: Sequence[str],
    ratios: Sequence[float] = (3, 1.3),
) -> list[Axes]:
    """Panels one above the other, over the steps that were looked at."""
    figure.set_layout_engine(None)
    axes = stack_panels(figure, headings, ratios)
    over_steps(axes[-1], table)
    return axes


def over_steps(axes: Axes, table: pd.DataFrame) -> None:
    """Let the horizontal axis be the steps that were looked at."""
    set_integer_axis(axes, table.index.min(), table.index.max(), "step")


def shade(share: float) -> Any:
    """A color from dark blue (0) to light orange (1), in grey from dark to light."""
    from matplotlib import colormaps

    return colormaps["plasma"](0.02 + 0.78 * share)


def scale(axes: Axes, values: Sequence[pd.Series], from_zero: bool = False) -> None:
    """A linear scale from zero, or a log one if values are positive over a factor of ten."""
    seen = np.concatenate([np.empty(0), *(v.to_numpy(dtype=float) for v in values)])
    top = seen.max(initial=0.0)
    if from_zero:
        axes.set_ylim(0, 1.08 * top or 1)
    elif len(seen) and seen.min() > 0 and top > 10 * seen.min():
        axes.set_yscale("log")


def line(axes: Axes, values: pd.Series, from_zero: bool = False) -> None:
    """One number over the steps, by itself in its panel."""
    lines(axes, {"": values}, from_zero)


def lines(axes: Axes, named: Mapping[str, pd.Series], from_zero: bool = False) -> None:
    """A few numbers over the steps, each with its name at the right."""
    found = {name: finite(values) for name, values in named.items()}
    found = {name: values for name, values in found.items() if len(values)}
    scale(axes, list(found.values()), from_zero)
    styles = list(zip(COLORS, DASHES, strict=True))[: len(found)]
    for values, (color, dash) in zip(found.values(), styles, strict=True):
        draw(axes, values, color=color, linestyle=dash, linewidth=2.4)
    set_plain_ticks(axes)
    pairs = zip(found.items(), styles, strict=True)
    label_ends(axes, [(v.iloc[-1], name, color) for (name, v), (color, _) in pairs if name])


def draw(axes: Axes, values: pd.Series, **style: Any) -> None:
    """A line, with markers where there are few points."""
    style.setdefault("marker", "o" if len(values) < 12 else "None")
    axes.plot(values.index, values.to_numpy(), markersize=6, **style)


def layer_lines(axes: Axes, table: pd.DataFrame, what: str, from_zero: bool = False) -> None:
    """A line a layer, from dark for the first to light for the last, with names at the right."""
    found = {layer: finite(values) for layer, values in columns(table, what).items()}
    found = {layer: values for layer, values in found.items() if len(values)}
    scale(axes, list(found.values()), from_zero)
    names, last = short(list(found)), max(len(found) - 1, 1)
    for depth, values in enumerate(found.values()):
        draw(axes, values, color=shade(depth / last), linewidth=2.2)
    set_plain_ticks(axes)
    room = max(2, int(axes.get_position().height * INCHES[1] * 72 / (1.3 * SIZE)))
    shown = set(np.linspace(0, len(found) - 1, min(len(found), room)).round().astype(int))
    label_ends(
        axes,
        [
            (values.iloc[-1], name, shade(depth / last))
            for depth, (name, values) in enumerate(zip(names, found.values(), strict=True))
            if depth in shown
        ],
    )


def level(axes: Axes, value: float, name: str = "") -> None:
    """A dotted line at a height, with its name on it; nothing where it is far from the curves."""
    low, high = axes.get_ylim()
    if low <= value <= high:
        axes.axhline(value, color=FAINT, linestyle=":", linewidth=1.6, zorder=1)
        bottom, at, top = axes.yaxis.get_transform().transform([low, value, high])
        up = at < (bottom + top) / 2
        written = axes.annotate(
            name, (0, value), xycoords=axes.get_yaxis_transform(), xytext=(6, 3 if up else -3),
            textcoords="offset points", color=INK, fontsize=SIZE - 3, zorder=6,
            va="bottom" if up else "top",
        )  # fmt: skip
        set_white_edge(written)


def finite(values: pd.Series) -> pd.Series:
    """The part of a series that can be drawn."""
    return values[np.isfinite(values.to_numpy(dtype=float))]


def short(layers: Sequence[str]) -> list[str]:
    """Names of layers without their last part if that tells none apart; of long ones the end.

    >>> short(["hidden.0.linear", "output"]), short(["a.encoder.layers.0.linear"])
    (['hidden.0', 'output'], ['a.encoder.layers.0'])
    """
    outer = [layer.rpartition(".")[0] or layer for layer in layers]
    names = outer if len(set(outer)) == len(layers) else layers
    return [name if len(name) <= NAME else f"…{name[-NAME:]}" for name in names]
