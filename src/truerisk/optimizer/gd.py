"""Gradient descent on the empirical risk itself."""

from __future__ import annotations

from torch.optim import SGD
from torch.optim.optimizer import ParamsT

from truerisk.optimizer.needs import Needs


class GD(SGD):
    """Gradient descent on the whole training set, w ← w − lr·(∇J(w) + λw).

    The step of SGD without momentum; declares that mini-batches would make it something else.
    Source: Cauchy (1847).

    Args:
        params: parameters or parameter groups.
        lr: step length.
        weight_decay: coupled L2, λ.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = GD([w], lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 6)
    0.8
    """

    needs = Needs(full_batch=True)

    def __init__(self, params: ParamsT, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)
