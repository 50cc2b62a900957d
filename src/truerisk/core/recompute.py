"""Activations that are worked out again in the backward pass, instead of being kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from truerisk.core.errors import ConfigError


def recompute_blocks(model: nn.Module) -> None:
    """Let the blocks of a model keep their inputs alone while it trains (Chen et al. 2016).

    Losses, gradients, running statistics and random draws are those of the model as it was, to the
    last bit, for one more forward pass of the blocks a step.

    Args:
        model: it is changed in place; names and parameters stay.

    Raises:
        ConfigError: there are no blocks in it.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise ConfigError(
            "recompute=true: the model has no layers of one kind in a row, each of several "
            "modules, as gpt, vit, transformer and resnet do: set recompute=false"
        )
    for block in blocks:
        block.forward = RecomputedForward(block)


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks of the outermost ModuleLists and Sequentials of blocks of one kind.

    >>> stack = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)))
    >>> len(find_blocks(nn.Sequential(stack, nn.Linear(2, 1)))), find_blocks(nn.Linear(2, 1))
    (3, [])
    """
    if isinstance(model, nn.ModuleList | nn.Sequential):
        members = list(model)
        if len({type(m) for m in members}) == 1 and all(list(m.children()) for m in members):
            return members
    return [block for child in model.children() for block in find_blocks(child)]


class RecomputedForward:
    """The forward pass of a block that keeps its inputs, and repeats itself when asked for more.

    Args:
        block: whose ``forward`` this stands in for.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block, self.forward = block, block.forward

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Map what the block's own forward pass maps."""
        # other tensors stand in the parameters' places for the length of a call only, so that a
        # repetition would not find them
        own = all(isinstance(p, nn.Parameter) for p in self.block.parameters())
        if not (own and self.block.training and torch.is_grad_enabled()):
            return self.forward(*args, **options)
        return checkpoint(
            self.forward, *args, use_reentrant=False, context_fn=self._make_contexts, **options
        )

    def _make_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what surrounds the forward pass and its repetition."""
        # batch norm moves its statistics, and power iteration its vectors, with each pass
        before = [
            (m, {k: b.clone() for k, b in m._buffers.items() if b is not None})
            for m in self.block.modules()
            if m._buffers
        ]
        return nullcontext(), EarlierBuffers(before)


class EarlierBuffers(AbstractContextManager[None]):
    """Buffers as they were before a forward pass; what moves meanwhile are copies of them.

    Args:
        before: modules with their buffers' values, by name.
    """

    def __init__(self, before: list[tuple[nn.Module, dict[str, Tensor]]]) -> None:
        self.before = before
        self._present: list[tuple[nn.Module, dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        self._present = [(module, dict(module._buffers)) for module, _ in self.before]
        for module, values in self.before:
            module._buffers.update({name: value.clone() for name, value in values.items()})

    def __exit__(self, *_: object) -> None:
        for module, values in self._present:
            module._buffers.update(values)
