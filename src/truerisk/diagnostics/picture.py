"""What the figures of diagnostics have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from truerisk.show.figure import INCHES, INK, SIZE, frame, label_ends, plain_ticks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELLED = 7
"""Lines that can have their names beside them; of more only some have."""

NAME = 16
"""Letters of a layer's name; of a longer one the end is shown."""


def table_of(history: pd.DataFrame, name: str) -> pd.DataFrame:
    """What one diagnostic logged: a row a step, a column a name without the prefix, in order."""
    rows = history[history.name.str.startswith(f"{name}/")]
    rows = rows.assign(name=rows.name.str.removeprefix(f"{name}/"))
    rows = rows.drop_duplicates(["step", "name"])
    wide = rows.pivot(index="step", columns="name", values="value")
    return wide.reindex(columns=list(dict.fromkeys(rows.name)))


def layers(table: pd.DataFrame, what: str) -> dict[str, pd.Series]:
    """The columns ``what/<layer>``, by layer, in the model's order."""
    prefix = f"{what}/"
    names = [name for name in table.columns if name.startswith(prefix)]
    return {name.removeprefix(prefix): table[name].dropna() for name in names}


def blank(title: str = "") -> Figure:
    """An empty figure in the style of all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=150, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=SIZE + 2, fontweight="bold", color=INK)
    return figure


def panels(
    figure: Figure,
    table: pd.DataFrame,
    headings: Sequence[str],
    ratios: Sequence[float] = (3, 1.3),
) -> list[Axes]:
    """Panels one above the other, over the steps that were looked at."""
    count = len(headings)
    axes = figure.subplots(count, sharex=True, squeeze=False, height_ratios=ratios[:count])[:, 0]
    for panel, heading in zip(axes, headings, strict=True):
        frame(panel, heading)
    low, high = table.index.min(), table.index.max()
    margin = max(0.5, 0.03 * (high - low))
    axes[-1].set_xlim(low - margin, high + margin)
    axes[-1].set_xlabel("step", fontsize=SIZE, color=INK)
    return list(axes)


def shade(share: float) -> Any:
    """A color from dark blue (0) to light orange (1), in grey from dark to light."""
    from matplotlib import colormaps

    return colormaps["plasma"](0.02 + 0.78 * share)


def scale(axes: Axes, values: Sequence[pd.Series]) -> None:
    """A log scale where the values are positive and span more than a factor of ten."""
    seen = np.concatenate([np.empty(0), *(v.to_numpy(dtype=float) for v in values)])
    seen = seen[np.isfinite(seen)]
    log = len(seen) > 0 and seen.min() > 0 and seen.max() > 10 * seen.min()
    axes.set_yscale("log" if log else "linear")


def line(axes: Axes, values: pd.Series, label: str = "", **style: Any) -> None:
    """One number over the steps, by itself in its panel."""
    values = finite(values)
    scale(axes, [values])
    draw(axes, values, **{"color": INK, "linewidth": 2.4} | style)
    plain_ticks(axes)
    if label and len(values):
        label_ends(axes, [(values.iloc[-1], label, style.get("color", INK))])


def draw(axes: Axes, values: pd.Series, **style: Any) -> None:
    """A line, with markers where there are few points."""
    style.setdefault("marker", "o" if len(values) < 12 else "None")
    axes.plot(values.index, values.to_numpy(), markersize=6, **style)


def layer_lines(axes: Axes, table: pd.DataFrame, what: str) -> None:
    """A line a layer, from dark for the first to light for the last, with names at the right."""
    found = {layer: finite(values) for layer, values in layers(table, what).items()}
    found = {layer: values for layer, values in found.items() if len(values)}
    scale(axes, list(found.values()))
    last = max(len(found) - 1, 1)
    for depth, values in enumerate(found.values()):
        draw(axes, values, color=shade(depth / last), linewidth=2.2)
    plain_ticks(axes)
    shown = set(np.linspace(0, len(found) - 1, min(len(found), LABELLED)).round().astype(int))
    label_ends(
        axes,
        [
            (values.iloc[-1], short(layer), shade(depth / last))
            for depth, (layer, values) in enumerate(found.items())
            if depth in shown
        ],
    )


def finite(values: pd.Series) -> pd.Series:
    """The part of a series that can be drawn."""
    return values[np.isfinite(values.to_numpy(dtype=float))]


def short(layer: str) -> str:
    """A layer's name, or the end of a long one.

    >>> short("output"), short("encoder.layers.0.attention")
    ('output', '…yers.0.attention')
    """
    return layer if len(layer) <= NAME else f"…{layer[-NAME:]}"
