"""The sparse scheme."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sparse_(tensor: Tensor, connections: int = 15, std: float = 1.0) -> Tensor:
    """Give each unit ``connections`` non-zero incoming weights from N(0, std²) (Martens 2010, §5).

    A unit is a row of the matrix [outputs, inputs, *kernel]; one with fewer inputs than
    ``connections`` gets all of them. (`torch.nn.init.sparse_` thins out columns instead, that is
    what leaves an input, and by a share.)

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
