"""Whether the gradient reaches every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.layers import layer_of, norms

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot


class GradientFlow(Diagnostic):
    """The norm of the gradient by layer, and how much of it is left at the first one.

    ``norm/<layer>`` is ``‖∂J/∂w_layer‖`` over all of a layer's parameters, of the gradient that the
    optimizer was given in the step just taken: on its batch, with its noise, and clipped if
    ``step.clip`` says so. ``ratio`` is that of the first layer with a weight matrix (or a kernel)
    to that of the last. Products of layer Jacobians make it shrink or grow as a power of the depth
    (Bengio, Simard & Frasconi 1994; Glorot & Bengio 2010): ``vanishing`` is 1 where the ratio is
    below ``threshold``, ``exploding`` where it is above 1/threshold.

    Args:
        every: when to look; see `Diagnostic`.
        threshold: of the ratio, in (0, 1].
    """

    first = 1
    reads_gradients = True

    def __init__(self, every: Mapping[str, Any] | None = None, threshold: float = 1e-3) -> None:
        super().__init__(every)
        self.threshold = check_float(
            "diagnostics.gradient_flow.threshold", threshold, 0, 1, above=True
        )

    def look(self, snapshot: Snapshot) -> Values:
        """The norms, their ratio, and the flags."""
        found = norms(snapshot.gradients)
        ratio = first_to_last(found, snapshot.gradients)
        vanishing, exploding = ratio < self.threshold, ratio > 1 / self.threshold
        if vanishing or exploding:
            what = "vanishes" if vanishing else "explodes"
            self.warn(
                f"the gradient {what} at step {snapshot.step}: its norm at the first layer is "
                f"{ratio:.2g} of that at the last"
            )
        flags = {"ratio": ratio, "vanishing": float(vanishing), "exploding": float(exploding)}
        return {f"norm/{layer}": norm for layer, norm in found.items()} | flags

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """The norms over the steps, a line a layer, and the ratio below."""
        from truerisk.diagnostics.picture import layer_lines, level, line, panels

        norm, ratio = panels(figure, table, ["norm of the gradient, by layer", "first to last"])
        layer_lines(norm, table, "norm")
        line(ratio, table["ratio"])
        level(ratio, self.threshold, "vanishing below")
        level(ratio, 1 / self.threshold, "exploding above")


def first_to_last(found: Mapping[str, float], gradients: Mapping[str, Tensor]) -> float:
    """The ratio of the first to the last layer that holds a matrix; nan where there is none.

    >>> import torch
    >>> names = ("a.weight", "norm.weight", "b.weight")
    >>> gradients = {n: torch.ones(1) if "norm" in n else torch.ones(1, 1) for n in names}
    >>> first_to_last({"a": 1.0, "norm": 5.0, "b": 2.0}, gradients)
    0.5
    """
    layers = [layer_of(n) for n, gradient in gradients.items() if gradient.ndim > 1 and "." in n]
    if not layers or not found[layers[-1]]:
        return math.nan
    return found[layers[0]] / found[layers[-1]]
