"""How far a step moves the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.gradient_flow import norms_by_layer

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
