"""Outputs and slopes of the activation functions of a model."""

from __future__ import annotations

from collections import Counter
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

ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Softsign, nn.LogSigmoid, nn.Hardtanh),
    *(nn.Hardsigmoid, nn.Hardswish),
)
"""Activation functions that act on each number by itself."""

REACH = 20.0
"""The largest slope of an activation function is sought between −20 and 20."""


NUMBERS = ("mean", "variance", "saturated", "dead")
"""What is measured of an activation function."""


class Activations(Diagnostic):
    """The outputs of the activation functions φ, layer by layer, and where they are flat.

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
        """Refuse models without an activation function."""
        if find_activations(recipe.model):
            return None
        return (
            "the model has no layer that is an activation function of its own (LSTM and GRU keep "
            "theirs inside): leave it out"
        )

    def look(self, snapshot: Snapshot) -> Values:
        """Take the samples through the model, and measure every activation function."""
        layers = find_activations(snapshot.model)
        calls: dict[str, list[ActivationSums]] = {name: [] for name in layers}
        made = Counter[str]()  # calls of this forward pass

        def make_hook(name: str) -> Any:
            def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Any = None) -> None:
                if isinstance(layer, nn.RNN):
                    measured = recurrent_slope(output[0].detach().float(), layer.nonlinearity)
                else:
                    measured = elementwise_slope(layer, args[0].detach().float())
                if made[name] == len(calls[name]):
                    calls[name].append(ActivationSums(self.flat * self._find_steepest(layer)))
                calls[name][made[name]].add(*measured)
                made[name] += 1

            return hook

        hooks = [_register_hook(layer, make_hook(name)) for name, layer in layers.items()]
        hooks.append(snapshot.model.register_forward_pre_hook(lambda *_: made.clear()))
        snapshot.forward_samples(self.samples, hooks)
        read = {name: [call.read() for call in sums] for name, sums in calls.items()}
        return {
            f"{what}/{name}": sum(call[what] for call in numbers) / len(numbers)
            for what in NUMBERS
            for name, numbers in read.items()
            if numbers
        }

    def _find_steepest(self, layer: nn.Module) -> float:
        """Find the largest slope of an activation function."""
        if isinstance(layer, nn.RNN):
            return 1.0
        # once for each layer, as the function does not change with the weights
        if layer not in self._steepest:
            grid = torch.linspace(-REACH, REACH, 4001)
            self._steepest[layer] = float(elementwise_slope(layer, grid)[1].max())
        return self._steepest[layer]

    def plot(self, figure: Figure, table: pd.DataFrame) -> None:
        """Draw the shares over the steps, and the variance of the outputs."""
        from truerisk.diagnostics.history_plots import add_panels, draw_layers

        headings = ["saturated, share of the outputs", "dead, share of the units"]
        headings += ["variance of the outputs"]
        axes = add_panels(figure, table, headings, (1, 1, 1))
        for panel, what in zip(axes, ("saturated", "dead", "variance"), strict=True):
            draw_layers(panel, table, what, from_zero=what != "variance")


class ActivationSums:
    """What is measured of one call of an activation function, over blocks of samples.

    Args:
        flat: the slope that counts as flat.
    """

    def __init__(self, flat: float) -> None:
        self.flat, self.count = flat, 0
        self.mean = self.squares = self.saturated = torch.zeros(())
        self.dead: Tensor | None = None

    def add(self, output: Tensor, slope: Tensor) -> None:
        """Add the outputs and the slopes of some samples, [n, …] both."""
        variance, mean = torch.var_mean(output, correction=0)
        before, now = self.count, output.numel()
        self.count += now
        # Chan, Golub & LeVeque 1979: sums of squares about a mean that moves
        shift = mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + now * (variance + shift**2 * (before / self.count))
        self.mean = self.mean.to(mean) + shift * (now / self.count)
        self.saturated = self.saturated.to(mean) + (slope <= self.flat).sum()
        dead = (slope.flatten(1) == 0).all(0)
        self.dead = dead if self.dead is None else self.dead & dead

    def read(self) -> dict[str, float]:
        """Return the four numbers."""
        assert self.dead is not None
        parts = [self.mean, self.squares / self.count, self.saturated / self.count]
        # stacked, as each `item` waits for the device
        numbers = torch.stack([*parts, self.dead.float().mean()]).tolist()
        return dict(zip(NUMBERS, numbers, strict=True))


def find_activations(model: nn.Module) -> dict[str, nn.Module]:
    """Find the activation functions of a model, and its plain recurrent layers, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, (*ELEMENTWISE, nn.RNN))}


def _register_hook(layer: nn.Module, hook: Any) -> Any:
    """Register a hook that sees inputs of an activation, and outputs of a recurrent layer."""
    if isinstance(layer, nn.RNN):
        return layer.register_forward_hook(hook)
    # before the forward pass, which may overwrite its input in place
    return layer.register_forward_pre_hook(hook)


def elementwise_slope(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute an activation function and its slope.

    Args:
        layer: a function of each number by itself.
        x: inputs of any shape.

    Returns:
        φ(x) and |φ′(x)|, of the shape of x.

    >>> output, slope = elementwise_slope(nn.Tanh(), torch.zeros(1, 1))
    >>> output.item(), slope.item()
    (0.0, 1.0)
    """
    with torch.enable_grad():
        x = x.requires_grad_()
        # `forward`, not a call, which would run the hook that calls this; on a copy, as a leaf
        # that needs a gradient must not be changed in place
        output = layer.forward(x.clone())
        (slope,) = torch.autograd.grad(output.sum(), x)
    return output.detach(), slope.abs()


def recurrent_slope(h: Tensor, nonlinearity: str) -> tuple[Tensor, Tensor]:
    """Compute the slope of the activation function of a plain recurrent layer from its states.

    Args:
        h: states of any shape.
        nonlinearity: ``tanh`` or ``relu``.

    Returns:
        The states, and the slopes that led to them, of the shape of h.
    """
    if nonlinearity == "tanh":
        return h, 1 - h.square()
    return h, (h > 0).float()
