"""Whether the gradient reaches every layer, and norms by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.diagnostics.diagnostic import Diagnostic, Values

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
        """Measure the norms and their ratio, and set the flags."""
        norms = norms_by_layer(snapshot.gradients)
        ratio = ratio_first_to_last(norms, snapshot.gradients)
        vanishing, exploding = ratio < self.threshold, ratio > 1 / self.threshold
        if vanishing or exploding:
            verb = {True: "vanishes", False: "explodes"}[vanishing]
            self.warn(
                f"the gradient {verb} at step {snapshot.step}: its norm at the first layer is "
                f"{ratio:.2g} of that at the last"
            )
        flags = {"ratio": ratio, "vanishing": float(vanishing), "exploding": float(exploding)}
        return {f"norm/{layer}": norm for layer, norm in norms.items()} | flags

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the norms over the steps, a line a layer, and the ratio below."""
        from truerisk.diagnostics.history_plots import (
            add_panels,
            draw_layers,
            draw_level,
            draw_line,
        )

        norm, ratio = add_panels(figure, table, ["norm of the gradient, by layer", "first to last"])
        draw_layers(norm, table, "norm")
        draw_line(ratio, table["ratio"])
        draw_level(ratio, self.threshold, "vanishing below")
        draw_level(ratio, 1 / self.threshold, "exploding above")


def ratio_first_to_last(norms: Mapping[str, float], gradients: Mapping[str, Tensor]) -> float:
    """Divide the norm of the first layer that holds a matrix by that of the last.

    Args:
        norms: of the layers' gradients, by layer.
        gradients: by the name of the parameter, in the model's order.

    Returns:
        The ratio; nan where no layer holds a matrix, or the last norm is 0.

    >>> names = ("a.weight", "norm.weight", "b.weight")
    >>> gradients = {n: torch.ones(1) if "norm" in n else torch.ones(1, 1) for n in names}
    >>> ratio_first_to_last({"a": 1.0, "norm": 5.0, "b": 2.0}, gradients)
    0.5
    """
    layers = [name_layer(n) for n, gradient in gradients.items() if gradient.ndim > 1 and "." in n]
    if not layers or not norms[layers[-1]]:
        return math.nan
    return norms[layers[0]] / norms[layers[-1]]


def name_layer(parameter: str) -> str:
    """Name the layer that a parameter belongs to; one that the model itself owns is its own layer.

    >>> name_layer("hidden.0.linear.weight"), name_layer("positions")
    ('hidden.0.linear', 'positions')
    >>> name_layer("output.parametrizations.weight.original")
    'output'
    """
    # torch.nn.utils.parametrize moves a weight into a module of its own below the layer
    layer, parametrized, _ = parameter.partition(".parametrizations.")
    if parametrized:
        return layer
    return parameter.rpartition(".")[0] or parameter


def norms_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Take the Euclidean norm over all the tensors of a layer.

    Args:
        tensors: by the name of their parameter, of any shapes.

    Returns:
        The norms, by layer, in the order of the tensors.

    >>> norms_by_layer({"a.weight": torch.tensor([3.0]), "a.bias": torch.tensor([4.0])})
    {'a': 5.0}
    """
    squares: dict[str, float] = {}
    if not tensors:
        return squares
    # one transfer for all the norms, as each `item` waits for the device
    norms = torch.stack(torch._foreach_norm(list(tensors.values()))).tolist()
    for name, norm in zip(tensors, norms, strict=True):
        layer = name_layer(name)
        squares[layer] = squares.get(layer, 0.0) + norm**2
    return {layer: square**0.5 for layer, square in squares.items()}
