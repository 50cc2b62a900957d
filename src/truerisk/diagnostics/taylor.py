"""Whether a step did what the derivatives of J promised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.objective import LocalObjective, taylor_polynomial

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


class Taylor(Diagnostic):
    """The decrease of J in one step, against its first- and second-order predictions.

    For a step s from w: ``real`` is ``J(w) − J(w + s)``, ``first`` is ``−∇Jᵀs`` and ``second`` is
    ``−∇Jᵀs − ½ sᵀ∇²J s``; all on the measured part of the training set, in eval mode. ``optimal``
    is the length, in units of the step taken, that the second-order model calls best along it,
    ``−∇Jᵀs / sᵀ∇²Js``: below 1 the step was too long, above too short, negative uphill. It is left
    out where J bends down along s and no length is best.

    Args:
        every: when to look; see `Diagnostic`.
    """

    cost = "moderate"
    first = 1
    on_functions = True

    def __init__(self, every: Mapping[str, Any] | None = None) -> None:
        super().__init__(every)
        self._start: Tensor | None = None

    def before(self, snapshot: Snapshot) -> None:
        """Keep where the step starts."""
        self._start = snapshot.point.w.clone()

    def look(self, snapshot: Snapshot) -> Values:
        """The three decreases, and the optimal length."""
        if self._start is None:
            return {}
        start, self._start = self._start, None
        found = decreases(snapshot.point.moved(start), snapshot.point.w - start)
        return found if all(map(math.isfinite, found.values())) else {}

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """The decreases, and the step taken over the optimal one below."""
        from truerisk.diagnostics.history_plots import add_panels, draw_level, draw_lines

        headings = ["decrease of J in one step", "optimal length / length taken (best: 1)"]
        told = "optimal" in table
        top, *below = add_panels(figure, table, headings[: 1 + told], (2.2, 1.5))
        names = {"real": "real", "second": "2nd order", "first": "1st order"}
        draw_lines(top, {label: table[name] for name, label in names.items()})
        draw_level(top, 0, "")
        for panel in below:
            draw_lines(panel, {"": table["optimal"]})
            draw_level(panel, 1, "")


def decreases(start: LocalObjective, step: Tensor) -> dict[str, float]:
    """What J loses in a step, really and by its derivatives at the start."""
    model = taylor_polynomial(start, step)
    value = float(model.value)
    slope, bend = float(model.slope), float(model.curvature)
    found = {
        "real": value - float(start.moved(start.w + step).value()),
        "first": -slope,
        "second": -slope - 0.5 * bend,
    }
    return found | ({"optimal": -slope / bend} if bend > 0 else {})
