"""Several tensors as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def flatten_tensors(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate all entries to one vector [p].

    >>> flatten_tensors([torch.zeros(2, 2), torch.ones(1)])
    tensor([0., 0., 0., 0., 1.])
    """
    # not `parameters_to_vector`: its `view` refuses gradients that are not contiguous
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def split_vector(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector [p] into views with the shapes of tensors; the inverse of `flatten_tensors`.

    Args:
        vector: as many entries as the tensors have together.
        like: tensors whose shapes the parts get.

    Returns:
        A part for each tensor.

    >>> parts = split_vector(torch.arange(3), [torch.zeros(1, 2), torch.zeros(1)])
    >>> [part.tolist() for part in parts]
    [[[0, 1]], [2]]
    """
    parts = vector.split([tensor.numel() for tensor in like])
    # views, so that writing into a part writes into the vector
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
