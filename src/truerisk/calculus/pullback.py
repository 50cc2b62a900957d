"""Vectors pulled back through a function."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.func import vjp

Linear = Callable[[Tensor], Tensor]


def pullback(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Linear]:
    """f(at), and the linear function ``u ↦ (∂f/∂w)ᵀu`` there, which shares its forward pass.

    >>> import torch
    >>> value, pull = pullback(torch.square, torch.tensor([3.0, 4.0]))
    >>> value, pull(torch.tensor([1.0, 10.0]))
    (tensor([ 9., 16.]), tensor([ 6., 80.]))
    """
    found = vjp(f, at)
    return found[0], lambda u: found[1](u)[0]
