"""What one step did: how far it moved the weights, and whether J fell as predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.gradient_flow import norms_by_layer
from truerisk.objective import LocalObjective, taylor_polynomial

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


class UpdateSize(Diagnostic):
    """The length of one step, by layer, and the distance from the initial weights.

    ``ratio/<layer>`` is ``‖Δw‖/‖w‖`` of the last step, with w from before it; about 1e-3 is usual
    for Adam. ``distance`` is ``‖w − w₀‖``, from the initial weights, and ``distance_share`` that in
    units of ``‖w₀‖``. ``learning_rate`` is the effective one, ``‖Δw‖/‖∇J‖``: the step per unit of
    the gradient that the optimizer was given (clipped, if ``step.clip`` says so). For plain
    gradient descent it is lr; it is left out where the optimizer leaves no gradient to divide by.
    Δw is the whole step, with decoupled weight decay and projections.

    Args:
        every: when to look; see `Diagnostic`.
    """

    first = 1
    on_functions = True

    def __init__(self, every: Mapping[str, Any] | None = None) -> None:
        super().__init__(every)
        self._initial: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def start(self, model: nn.Module) -> None:
        """Copy w₀."""
        self._initial = {n: p.detach().clone() for n, p in model.named_parameters()}

    def before(self, snapshot: Snapshot) -> None:
        """Copy the weights that the step is about to change."""
        self._before = {n: p.detach().clone() for n, p in snapshot.params.items()}

    @torch.no_grad()
    def look(self, snapshot: Snapshot) -> Values:
        """Compare the weights with those before the step, and with the initial ones."""
        now = {n: p.detach() for n, p in snapshot.params.items()}
        initial = {n: self._initial[n].to(p) for n, p in now.items()}
        values = {"distance": total_norm(subtract_tensors(now, initial))}
        values["distance_share"] = values["distance"] / (total_norm(initial) or torch.nan)
        before, self._before = self._before, {}
        if not before:  # a step that a loss scaler left out changed nothing
            return values
        update = subtract_tensors(now, before)
        weight_norms, update_norms = norms_by_layer(before), norms_by_layer(update)
        for layer, norm in update_norms.items():
            if weight_norms[layer]:
                values[f"ratio/{layer}"] = norm / weight_norms[layer]
        gradient_norm = total_norm(snapshot.gradients)
        if gradient_norm:
            values["learning_rate"] = total_norm(update) / gradient_norm
        return values

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the ratios over the steps, the distance, and the effective learning rate."""
        from truerisk.diagnostics.history_plots import add_panels, draw_layers, draw_line

        headings = ["size of a step ‖Δw‖/‖w‖, by layer", "distance from the start ‖w − w₀‖"]
        if "learning_rate" in table:
            headings.append("effective learning rate ‖Δw‖/‖∇J‖")
        ratio, distance, *rate = add_panels(figure, table, headings, (2.2, 1, 1))
        draw_layers(ratio, table, "ratio")
        draw_line(distance, table["distance"], from_zero=True)
        for panel in rate:
            draw_line(panel, table["learning_rate"])


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
        self._before: Tensor | None = None

    def before(self, snapshot: Snapshot) -> None:
        """Copy the weights that the step is about to change."""
        self._before = snapshot.local_objective.w.clone()

    def look(self, snapshot: Snapshot) -> Values:
        """Compare the decrease with its predictions."""
        if self._before is None:
            return {}
        before, self._before = self._before, None
        point = snapshot.local_objective
        values = compare_decreases(point.move_to(before), point.w - before)
        if not all(map(math.isfinite, values.values())):
            return {}
        return values

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the decreases, and the optimal length over the one taken below."""
        from truerisk.diagnostics.history_plots import add_panels, draw_level, draw_lines

        headings = ["decrease of J in one step"]
        if "optimal" in table:
            headings.append("optimal length / length taken (best: 1)")
        top, *below = add_panels(figure, table, headings, (2.2, 1.5))
        names = {"real": "real", "second": "2nd order", "first": "1st order"}
        draw_lines(top, {label: table[name] for name, label in names.items()})
        draw_level(top, 0, "")
        for panel in below:
            draw_lines(panel, {"": table["optimal"]})
            draw_level(panel, 1, "")


def compare_decreases(start: LocalObjective, step: Tensor) -> dict[str, float]:
    """Compare what J loses in a step with what its derivatives at the start predict.

    Args:
        start: J at the weights before the step.
        step: the step [p].

    Returns:
        ``real``, ``first``, ``second`` and, where J bends up along the step, ``optimal``.
    """
    model = taylor_polynomial(start, step)
    value, slope, curvature = float(model.value), float(model.slope), float(model.curvature)
    decreases = {
        "real": value - float(start.move_to(start.w + step).value()),
        "first": -slope,
        "second": -slope - 0.5 * curvature,
    }
    if curvature > 0:
        decreases["optimal"] = -slope / curvature
    return decreases


def subtract_tensors(
    minuends: Mapping[str, Tensor], subtrahends: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Subtract tensors of one name from each other.

    Args:
        minuends: what is subtracted from.
        subtrahends: what is subtracted, at least under the same names and of the same shapes.

    Returns:
        The differences, by name.
    """
    differences = torch._foreach_sub(
        list(minuends.values()), [subtrahends[name] for name in minuends]
    )
    return dict(zip(minuends, differences, strict=True))


def total_norm(tensors: Mapping[str, Tensor]) -> float:
    """Take the Euclidean norm over all tensors; 0 without any.

    >>> total_norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    5.0
    """
    if not tensors:
        return 0.0
    return torch.stack(torch._foreach_norm(list(tensors.values()))).norm().item()
