"""How far the outputs of each layer have moved since the initial weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from truerisk.core.checks import check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values
from truerisk.diagnostics.gradient_flow import name_layer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe


class FeatureChange(Diagnostic):
    """The change of each layer's outputs h since the initial weights, on the same samples.

    ``change/<layer>`` is the root mean square of ``hₜ − h₀`` over samples and outputs, and
    ``share/<layer>`` that in units of the root mean square of h₀. Where features are learned, the
    change is of the size of the features themselves, at every width; where a wide network stays
    close to its linearization, that of hidden layers vanishes as it widens (Yang & Hu 2021,
    "Tensor Programs IV"). Looked at over the width after a few steps, it is the coordinate check of
    Yang et al. (2022, "Tensor Programs V", appendix D.1).

    Args:
        every: when to look; see `Diagnostic`.
        samples: that are shown to the model.
    """

    first = 1

    def __init__(self, every: Mapping[str, Any] | None = None, samples: int = 200) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.feature_change.samples", samples)
        self._initial: dict[str, Tensor] = {}

    def refuse(self, recipe: Recipe) -> str | None:
        """Refuse models that are one layer of their own, with nothing inside to look at."""
        if find_layers(recipe.model):
            return None
        return "the model has no layer with weights inside it: leave it out"

    def start(self, model: nn.Module) -> None:
        """Copy the initial weights and running statistics."""
        # weights rather than outputs, so that a restart finds the same numbers again
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._initial = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def look(self, snapshot: Snapshot) -> Values:
        """Take the samples through the model as it is and as it was."""
        changes: dict[str, list[Squares]] = {}
        sizes: dict[str, list[Squares]] = {}
        for batch in snapshot.batches(most=self.samples):
            now, before = (
                self._read_outputs(snapshot, weights, batch.x) for weights in (None, self._initial)
            )
            for layer, outputs in now.items():
                moved = [a - b for a, b in zip(outputs, before[layer], strict=True)]
                changes.setdefault(layer, []).append(add_squares(moved))
                sizes.setdefault(layer, []).append(add_squares(before[layer]))
        values: dict[str, float] = {}
        for layer, parts in changes.items():
            change = measure_rms(parts)
            values[f"change/{layer}"] = change
            # an output layer may begin at zeros, and has no share then
            values[f"share/{layer}"] = change / (measure_rms(sizes[layer]) or math.nan)
        return values

    def _read_outputs(
        self, snapshot: Snapshot, weights: Mapping[str, Tensor] | None, x: Tensor
    ) -> dict[str, list[Tensor]]:
        """Return what each layer puts out in each of its calls."""
        found: dict[str, list[Tensor]] = {}

        def make_hook(name: str) -> Any:
            def hook(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                # a recurrent layer returns its states, and the last one again
                first = output[0] if isinstance(output, tuple) else output
                # a layer may be called more than once
                found.setdefault(name, []).append(first.detach().double())

            return hook

        layers = find_layers(snapshot.model)
        hooks = [layer.register_forward_hook(make_hook(name)) for name, layer in layers.items()]
        try:
            with snapshot.run.forward_context(), torch.no_grad():
                if weights is None:
                    snapshot.model(x)
                else:
                    moved = {name: tensor.to(x.device) for name, tensor in weights.items()}
                    functional_call(snapshot.model, moved, (x,))
        finally:
            for handle in hooks:
                handle.remove()
        return found

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw both numbers over the steps, a line a layer."""
        from truerisk.diagnostics.history_plots import add_panels, draw_layers

        headings = ["change of the outputs, root mean square", "as a share of the initial outputs"]
        for axes, what in zip(
            add_panels(figure, table, headings, (1, 1)), ("change", "share"), strict=True
        ):
            draw_layers(axes, table, what)


def find_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Find the layers inside a model that own a weight matrix or a kernel, by name.

    Args:
        model: the model.

    >>> sorted(find_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0', '2']
    """
    modules = dict(model.named_modules())
    # vectors alone, as those of norms, are no layers that learn features
    names = dict.fromkeys(name_layer(n) for n, p in model.named_parameters() if p.ndim > 1)
    return {name: modules[name] for name in names if name and name in modules}


class Squares(NamedTuple):
    """The sum of the squares of so many numbers."""

    total: float
    numbers: int


def add_squares(tensors: list[Tensor]) -> Squares:
    """Sum the squares of all the numbers of some tensors."""
    total = sum(float(tensor.square().sum()) for tensor in tensors)
    return Squares(total, sum(tensor.numel() for tensor in tensors))


def measure_rms(parts: list[Squares]) -> float:
    """Take the root mean square of numbers from the sums of their squares.

    >>> measure_rms([add_squares([torch.tensor([3.0])]), Squares(16.0, 1)]) == 12.5**0.5
    True
    """
    return math.sqrt(sum(part.total for part in parts) / sum(part.numbers for part in parts))
