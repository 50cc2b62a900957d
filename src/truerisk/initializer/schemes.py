"""Schemes that torch does not have, as functions that fill one tensor in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def identity_(tensor: Tensor, scale: float = 1.0) -> Tensor:
    """Fill a matrix with scale · I, for hidden-to-hidden weights.

    Source: Le, Jaitly & Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear
    Units", 2015.

    Args:
        tensor: the matrix [rows, columns].
        scale: of the diagonal.

    Returns:
        The tensor.

    >>> identity_(torch.empty(2, 2), scale=0.5).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    nn.init.eye_(tensor)
    with torch.no_grad():
        return tensor.mul_(scale)


def sparse_(tensor: Tensor, connections: int = 15, std: float = 1.0) -> Tensor:
    """Give each unit ``connections`` non-zero incoming weights from N(0, std²).

    A unit is a row of the matrix [outputs, inputs, *kernel]; one with fewer inputs than
    ``connections`` gets all of them. (`torch.nn.init.sparse_` thins out columns instead, that is
    what leaves an input, and by a share.)

    Source: Martens, "Deep Learning via Hessian-free Optimization", ICML 2010, §5.

    Args:
        tensor: the weights [outputs, inputs, *kernel].
        connections: non-zero weights a unit.
        std: their standard deviation.

    Returns:
        The tensor.

    Raises:
        ValueError: ``connections`` is below 1.

    >>> w = sparse_(torch.empty(50, 100), connections=15)
    >>> w.count_nonzero(dim=1).unique().tolist()
    [15]
    """
    if connections < 1:
        raise ValueError(f"connections must be at least 1, not {connections}")
    outputs, inputs = tensor.flatten(1).shape
    incoming = torch.empty(inputs, outputs, dtype=tensor.dtype, device=tensor.device)
    # half a weight less: torch rounds the number of zeros up, past the rounding of the share
    share = max(inputs - connections - 0.5, 0.0) / inputs
    nn.init.sparse_(incoming, sparsity=share, std=std)
    with torch.no_grad():
        return tensor.copy_(incoming.T.reshape(tensor.shape))


def truncated_normal_(tensor: Tensor, std: float = 0.05, cut: float = 2.0) -> Tensor:
    """Fill with N(0, std²) conditioned on [-cut·std, cut·std].

    The cut lowers the variance to std²·(1 - 2·cut·φ(cut) / (2Φ(cut) - 1)), with the standard
    normal's density φ and distribution Φ: 0.774·std² for a cut at 2.

    Args:
        tensor: the weights.
        std: standard deviation before the cut.
        cut: largest absolute value, in standard deviations.

    Returns:
        The tensor.

    >>> w = truncated_normal_(torch.empty(1000, 1000), std=0.1)
    >>> bool(w.abs().max() <= 0.2), round(float(w.var() / 0.1**2), 2)
    (True, 0.77)
    """
    return nn.init.trunc_normal_(tensor, std=std, a=-cut * std, b=cut * std)
