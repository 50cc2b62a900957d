"""What the activation functions of a model do to its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_float, check_int
from truerisk.diagnostics.diagnostic import Diagnostic, Values

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from truerisk.diagnostics.snapshot import Snapshot
    from truerisk.recipe import Recipe

KINDS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Softsign, nn.LogSigmoid, nn.Hardtanh),
    *(nn.Hardsigmoid, nn.Hardswish),
)
"""Activation functions that act on each number by itself."""

REACH = 20.0
"""Inputs up to this size show how steep an activation function gets."""


class Activations(Diagnostic):
    """Outputs of the activation functions φ, layer by layer, and where they are flat.

    Over some samples of the measured part of the training set and all units of a layer, a unit
    being one entry of its output:

    | number              | is                                                            |
    |---------------------|---------------------------------------------------------------|
    | `mean`, `variance`  | of the outputs φ(a)                                           |
    | `saturated`         | share of outputs whose slope is ``|φ′(a)| ≤ flat · max |φ′|`` |
    | `dead`              | share of units whose slope is 0 for every sample              |

    Saturated are the ends of a sigmoid or tanh (with ``flat`` = 0.05, |tanh a| above 0.975), the
    far left of a GELU, and the zeros of a ReLU, of which half are usual. A unit that is dead passes
    no gradient back, whatever the sample (Glorot, Bordes & Bengio 2011, §3.1). The states of a
    plain recurrent layer count as outputs of its tanh or ReLU.

    Args:
        every: when to look; see `Diagnostic`.
        samples: that are shown to the model.
        flat: the slope that counts as flat, as a share of the largest.
    """

    def __init__(
        self, every: Mapping[str, Any] | None = None, samples: int = 200, flat: float = 0.05
    ) -> None:
        super().__init__(every)
        self.samples = check_int("diagnostics.activations.samples", samples)
        self.flat = check_float("diagnostics.activations.flat", flat, 0, 1)
        self._steepest: dict[nn.Module, float] = {}

    def refuse(self, recipe: Recipe) -> str | None:
        """A model needs an activation."""
        if activations(recipe.model):
            return None
        return (
            "the model has no layer that is an activation function of its own (LSTM and GRU keep "
            "theirs inside): leave it out"
        )

    def look(self, snapshot: Snapshot) -> Values:
        """Show the samples to the model once."""
        layers = activations(snapshot.model)
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in layers}

        def watch(name: str) -> Any:
            def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Any = None) -> None:
                if isinstance(layer, nn.RNN):
                    found = states(output[0].detach().float(), layer.nonlinearity)
                else:
                    found = elementwise(layer, args[0].detach().float())
                seen[name].append(self._numbers(*found, self._most(layer)))

            return hook

        snapshot.forward_samples(
            self.samples, (_tap(layer, watch(name)) for name, layer in layers.items())
        )
        return {
            f"{what}/{name}": sum(call[what] for call in calls) / len(calls)
            for what in ("mean", "variance", "saturated", "dead")
            for name, calls in seen.items()
            if calls
        }

    def _numbers(self, output: Tensor, slope: Tensor, steepest: float) -> dict[str, float]:
        variance, mean = torch.var_mean(output, correction=0)
        flat = (slope <= self.flat * steepest).float().mean()
        dead = (slope.flatten(1) == 0).all(0).float().mean()
        numbers = torch.stack([mean, variance, flat, dead]).tolist()
        return dict(zip(("mean", "variance", "saturated", "dead"), numbers, strict=True))

    def _most(self, layer: nn.Module) -> float:
        """The largest slope of an activation function."""
        if layer not in self._steepest:
            grid = torch.linspace(-REACH, REACH, 4001)
            steepest = 1.0 if isinstance(layer, nn.RNN) else elementwise(layer, grid)[1].max()
            self._steepest[layer] = float(steepest)
        return self._steepest[layer]

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """The shares over the steps, and the variance of the outputs."""
        from truerisk.diagnostics.picture import layer_lines, panels

        headings = ["saturated, share of the outputs", "dead, share of the units"]
        headings += ["variance of the outputs"]
        axes = panels(figure, table, headings, (1, 1, 1))
        for panel, what in zip(axes, ("saturated", "dead", "variance"), strict=True):
            layer_lines(panel, table, what, from_zero=what != "variance")


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """The activation functions of a model, and its plain recurrent layers, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, (*KINDS, nn.RNN))}


def _tap(layer: nn.Module, hook: Any) -> Any:
    """Before the layer, whose input may be overwritten; after it where states come out of it."""
    if isinstance(layer, nn.RNN):
        return layer.register_forward_hook(hook)
    return layer.register_forward_pre_hook(hook)


def elementwise(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """φ(x) and |φ′(x)|.

    >>> out, slope = elementwise(nn.Tanh(), torch.zeros(1, 1))
    >>> out.item(), slope.item()
    (0.0, 1.0)
    """
    with torch.enable_grad():
        x = x.requires_grad_()
        output = layer.forward(x.clone())  # in place, maybe
        (slope,) = torch.autograd.grad(output.sum(), x)
    return output.detach(), slope.abs()


def states(h: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The states of a plain recurrent layer, and the slope that led to them."""
    return h, 1 - h.square() if kind == "tanh" else (h > 0).float()
