"""A randomised estimate."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """An estimate from random probes, and its standard error: scalars, or vectors [p]."""

    value: Tensor
    stderr: Tensor


def mean_of(draws: Tensor) -> Estimate:
    """The mean over independent draws [k, …], and its standard error s/√k (nan for one draw).

    >>> import torch
    >>> mean_of(torch.tensor([1.0, 2.0, 3.0]))
    Estimate(value=tensor(2.), stderr=tensor(0.5774))
    """
    if len(draws) < 2:
        return Estimate(draws.mean(0), draws.mean(0) * math.nan)
    return Estimate(draws.mean(0), draws.std(0) / math.sqrt(len(draws)))
