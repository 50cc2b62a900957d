"""Wrong labels, put into the training split on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError


def checked_share(share: float) -> float:
    """The share of wrong labels, if it is one.

    Raises:
        ConfigError: it is not a number from 0 to 1.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ConfigError(f"data.label_noise is {share!r}: give a share from 0 to 1")
    return float(share)


def noisy(y: Tensor, share: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Replace round(share · n) randomly chosen labels by another class, drawn uniformly.

    With the same generator state a larger share changes the same labels and more.

    >>> y = torch.zeros(100, dtype=torch.long)
    >>> int((noisy(y, 0.25, 3, torch.Generator().manual_seed(0)) != 0).sum())
    25
    """
    hit = torch.randperm(len(y), generator=generator)
    shift = torch.randint(1, num_classes, (len(y),), generator=generator)
    shift[hit[round(share * len(y)) :]] = 0
    return (y + shift) % num_classes
