"""Forward hooks that are there for one block of code only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""Called with a module, its positional arguments and its output; may return another output."""


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """Call hooks after the forward passes of modules inside the block; remove them at its end.

    >>> import torch
    >>> layer, shapes = nn.Linear(2, 3), []
    >>> with forward_hooks([(layer, lambda m, args, out: shapes.append(tuple(out.shape)))]):
    ...     _ = layer(torch.zeros(4, 2))
    >>> shapes, len(layer._forward_hooks)
    ([(4, 3)], 0)
    """
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield
