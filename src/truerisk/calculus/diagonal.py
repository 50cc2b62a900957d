"""The diagonal."""

from __future__ import annotations

import torch

from truerisk.calculus.estimate import Estimate
from truerisk.calculus.operator import Operator


def diagonal(a: Operator, probes: int = 96, seed: int = 0) -> Estimate:
    """``diag A = E[v ⊙ Av]``, [p], for v with independent entries ±1.

    The variance of entry i for one probe is ``Σ_{j≠i} aᵢⱼ²``: a diagonal A comes out exactly. One
    product a probe, in the memory of a block of them.

    Source: Bekas, Kokiopoulou & Saad, "An Estimator for the Diagonal of a Matrix", Applied
    Numerical Mathematics 57 (2007), §2.
    """
    total = torch.zeros(a.size, dtype=a.dtype, device=a.device)
    squares = torch.zeros_like(total)
    shift = None
    for v in a.probes(probes, seed, "diagonal"):
        draws = v * (a @ v)
        # deviations from the first draw: squares of the values themselves would cancel
        shift = draws[:, 0].clone() if shift is None else shift
        total += (draws - shift[:, None]).sum(1)
        squares += (draws - shift[:, None]).square().sum(1)
    off = total / probes
    variance = (squares - probes * off.square()).clamp(min=0) / (probes - 1 or torch.nan)
    return Estimate(off + (0 if shift is None else shift), (variance / probes).sqrt())
