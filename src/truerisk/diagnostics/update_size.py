"""How far a step moves the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.layers import norms

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


class UpdateSize(Diagnostic):
    """The length of one step, by layer, and of the way so far.

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
        self._start: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def start(self, model: nn.Module) -> None:
        """Keep w₀."""
        self._start = {n: p.detach().clone() for n, p in model.named_parameters()}

    def before(self, snapshot: Snapshot) -> None:
        """Keep the weights that the step is about to change."""
        self._before = {n: p.detach().clone() for n, p in snapshot.params.items()}

    @torch.no_grad()
    def look(self, snapshot: Snapshot) -> Values:
        """Compare the weights with those before the step, and with the first ones."""
        now = {n: p.detach() for n, p in snapshot.params.items()}
        start = {n: self._start[n].to(p) for n, p in now.items()}
        found = {"distance": total(difference(now, start))}
        found["distance_share"] = found["distance"] / (total(start) or torch.nan)
        before, self._before = self._before, {}
        if before:  # a step that a loss scaler left out changed nothing
            moved = difference(now, before)
            sizes, steps = norms(before), norms(moved)
            found |= {f"ratio/{k}": step / sizes[k] for k, step in steps.items() if sizes[k]}
            slope = total(snapshot.gradients)
            found |= {"learning_rate": total(moved) / slope} if slope else {}
        return found

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """The ratios over the steps, the distance, and the effective learning rate."""
        from truerisk.diagnostics.picture import layer_lines, line, panels

        headings = ["size of a step ‖Δw‖/‖w‖, by layer", "distance from the start ‖w − w₀‖"]
        rated = "learning_rate" in table
        headings += ["effective learning rate ‖Δw‖/‖∇J‖"] if rated else []
        ratio, distance, *rate = panels(figure, table, headings, (2.2, 1, 1))
        layer_lines(ratio, table, "ratio")
        line(distance, table["distance"], from_zero=True)
        for panel in rate:
            line(panel, table["learning_rate"])


def difference(to: Mapping[str, Tensor], since: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """to − since, by name."""
    steps = torch._foreach_sub(list(to.values()), [since[n] for n in to])
    return dict(zip(to, steps, strict=True))


def total(named: Mapping[str, Tensor]) -> float:
    """The Euclidean norm over all tensors; 0 without any.

    >>> total({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    5.0
    """
    return torch.stack(torch._foreach_norm(list(named.values()))).norm().item() if named else 0.0
