"""What goes into and comes out of layers in a forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class Taps:
    """Records the inputs and outputs of ``layers`` in the first forward pass of ``model``.

    A layer called several times has an entry for each call. What later passes do, such as those of
    a penalty that looks at other inputs, is not recorded. Layers hand on a copy of their output, so
    that an activation that works in place leaves the recorded one alone.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(inplace=True))
    >>> with Taps(model, [model[0]]) as taps:
    ...     first, second = model(torch.ones(3, 1)), model(torch.ones(4, 1))
    >>> [tuple(x.shape) for x in taps.inputs[model[0]]], len(taps.outputs[model[0]])
    ([(3, 1)], 1)
    """

    def __init__(self, model: nn.Module, layers: Iterable[nn.Module]) -> None:
        self.model, self.layers, self.recording = model, list(layers), True
        self.inputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in self.layers}
        self.outputs: dict[nn.Module, list[Tensor]] = {layer: [] for layer in self.layers}

    def __enter__(self) -> Taps:
        self._handles = [layer.register_forward_hook(self._record) for layer in self.layers]
        if self.layers:
            self._handles.append(self.model.register_forward_hook(self._stop))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not self.recording:
            return None
        self.inputs[layer].append(args[0].detach())
        self.outputs[layer].append(output)
        return output.clone()

    def _stop(self, *_: Any) -> None:
        self.recording = False
