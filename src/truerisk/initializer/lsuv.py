"""Layer-sequential unit-variance initialization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.initializer.initializer import Initializer, writable_weights

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]


class LSUV:
    """Orthogonal weights, scaled layer by layer to unit output variance (Mishkin & Matas 2016).

    In the order in which the forward pass reaches them, the weights of every linear and
    convolutional layer are divided by the standard deviation s of the layer's outputs over a batch,
    W ← W · gain / s, until |s² / gain² - 1| ≤ tolerance. One pass does it: each layer is scaled
    before the next one sees its output. Recurrent layers, whose outputs are bounded, stay
    orthogonal.

    Args:
        tolerance: largest relative error of the variance.
        max_iterations: scalings of one layer at most.
        gain: the standard deviation asked of the outputs.
        bias: the value of every bias; None keeps them.

    Raises:
        ConfigError: a number is out of range; on calling: there is no batch, or a layer's output
            does not vary over it.

    >>> layer = nn.Linear(8, 4)
    >>> x = 3 * torch.randn(64, 8)
    >>> LSUV()(layer, x)
    >>> bool((layer(x).var(correction=0) - 1).abs() < 0.01)
    True
    """

    needs_data = True

    def __init__(
        self,
        tolerance: float = 0.01,
        max_iterations: int = 10,
        gain: float = 1.0,
        bias: float | None = 0.0,
    ) -> None:
        self.tolerance = check_float("initializer.tolerance", tolerance, above=True)
        self.max_iterations = check_int("initializer.max_iterations", max_iterations)
        self.gain = check_float("initializer.gain", gain, above=True)
        self.orthogonal = Initializer(nn.init.orthogonal_, bias)

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor | None = None) -> None:
        """Set the model's weights in place.

        Args:
            model: the model.
            x: the batch [n, *input_shape] that outputs are measured on.

        Raises:
            ConfigError: there is no batch, or a layer's output does not vary over it.
        """
        if x is None:
            raise ConfigError("initializer=lsuv measures the layers' outputs: it needs a batch")
        self.orthogonal(model)
        # hooks go and buffers come back also where a layer cannot be scaled
        with ExitStack() as stack:
            stack.enter_context(keep_buffers(model))
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear | _ConvNd):
                    hook = module.register_forward_hook(self._make_hook(name), with_kwargs=True)
                    stack.callback(hook.remove)
            model(x)

    def _make_hook(self, name: str) -> Hook:
        """Make a hook that scales its layer the first time it runs, and returns its new output."""
        scaled = False

        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
        ) -> Tensor:
            nonlocal scaled
            # a layer that a model uses twice keeps the scale of its first use
            if scaled:
                return output
            scaled = True
            for _ in range(self.max_iterations):
                ratio = self._std_ratio(name, output)
                if abs(ratio**2 - 1) <= self.tolerance:
                    break
                with writable_weights(module):
                    module.weight.div_(ratio)  # type: ignore[operator]
                # not module(…), which would call this hook again
                output = module.forward(*args, **kwargs)
            return output

        return hook

    def _std_ratio(self, name: str, output: Tensor) -> float:
        """Measure the standard deviation of a layer's output, as a multiple of the gain."""
        # in double precision: the tolerance is for the weights, none of it for rounding
        ratio = float(output.double().std(correction=0)) / self.gain
        if not 0 < ratio < float("inf"):
            raise ConfigError(
                f"initializer=lsuv cannot scale the layer {name or 'model'!r}: its outputs have "
                f"standard deviation {ratio * self.gain} on the data; use another initializer"
            )
        return ratio


@contextmanager
def keep_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers, such as batch norm's running statistics, after the block."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in buffers:
            buffer.copy_(value)
