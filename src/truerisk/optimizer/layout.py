"""Which of a model's parameters have which kind of curvature, and what a batch says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from truerisk.core.curvature_oracle import LayerCapture
from truerisk.core.errors import ConfigError
from truerisk.optimizer.kronecker import Block, Norm, factorable, norm_diagonal


class Layout(NamedTuple):
    """Which parameters are in Kronecker blocks, which in norm layers, and the others."""

    blocks: list[Block]
    norms: list[Any]
    others: list[Tensor]


def divide(model: nn.Module, params: Sequence[Tensor]) -> Layout:
    """Divide the parameters by the layers they belong to; one that several share is an other."""
    ours = {id(p) for p in params} - shared(model)
    blocks, norms = [], []
    for module in called(model):
        if factorable(module):
            block = Block(module, lambda p: id(p) in ours)
            blocks += [block] if block.params else []
        elif isinstance(module, Norm) and {id(p) for p in norm_params(module)} & ours:
            norms.append(module)
    inside = {id(p) for block in blocks for p in block.params}
    inside |= {id(p) for norm in norms for p in norm_params(norm)}
    return Layout(blocks, norms, [p for p in params if id(p) not in inside])


def called(module: nn.Module) -> Iterator[nn.Module]:
    """The modules below one, but for those inside torch's attention, which reads their weights."""
    yield module
    if not isinstance(module, nn.MultiheadAttention):
        for child in module.children():
            yield from called(child)


def shared(model: nn.Module) -> set[int]:
    """The ids of the parameters that are found at more than one place."""
    found = Counter(id(p) for m in set(model.modules()) for p in m.parameters(recurse=False))
    return {key for key, count in found.items() if count > 1}


def uncalled(layer: nn.Module) -> ConfigError:
    """The error for a layer whose parameters are used without its forward pass."""
    return ConfigError(
        f"optimizer=kfac sees what goes through a layer when it is called, and {layer} never is, "
        "though its parameters are used: call the layer itself in the model's forward, or take "
        "optimizer=newton_cg"
    )


def norm_params(layer: Any) -> list[Tensor]:
    """A norm layer's scale and shift, where it has both."""
    return [p for p in (layer.weight, layer.bias) if p is not None]


def statistics(layout: Layout, capture: LayerCapture) -> Iterator[tuple[Tensor, str, Tensor]]:
    """What one micro-batch says of the curvature: parameter, name and value."""
    for block in layout.blocks:
        inputs, slopes = capture.inputs[block.layer], capture.output_gradients[block.layer]
        if inputs:
            a, g = block.factors(inputs, slopes)
            yield block.params[0], "input", a
            yield block.params[0], "output", g
    for layer in layout.norms:
        inputs, slopes = capture.inputs[layer], capture.output_gradients[layer]
        diagonals = norm_diagonal(layer, inputs, slopes)
        yield from zip(norm_params(layer), ["diagonal"] * 2, diagonals, strict=False)
    for param, gradient in zip(layout.others, capture.gradients, strict=True):
        yield param, "diagonal", gradient**2 / capture.samples
