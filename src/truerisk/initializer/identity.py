"""The identity scheme."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def identity_(tensor: Tensor, scale: float = 1.0) -> Tensor:
    """Fill a matrix with scale · I, for hidden-to-hidden weights (Le, Jaitly & Hinton 2015).

    >>> identity_(torch.empty(2, 2), scale=0.5).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    nn.init.eye_(tensor)
    with torch.no_grad():
        return tensor.mul_(scale)
