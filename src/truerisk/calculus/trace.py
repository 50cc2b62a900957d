"""The trace."""

from __future__ import annotations

import torch
from torch import Tensor

from truerisk.calculus.estimate import Estimate, mean_of
from truerisk.calculus.operator import BLOCK, Operator
from truerisk.core.errors import ConfigError


def hutchinson(a: Operator, probes: int = 96, seed: int = 0) -> Estimate:
    """``tr A = E[vᵀAv]`` for v with independent entries ±1 (Hutchinson 1990).

    The variance of one probe is ``2(‖A‖_F² − Σ aᵢᵢ²)``. One product a probe.
    """
    quadratics = [(v * (a @ v)).sum(0) for v in a.probes(probes, seed, "hutchinson")]
    return mean_of(torch.cat(quadratics))


def hutch_plus_plus(a: Operator, products: int = 96, seed: int = 0) -> Estimate:
    """The trace, exactly on the span of a third of the products and estimated on the rest.

    ``tr A = tr QᵀAQ + E[vᵀ(I − QQᵀ)A(I − QQᵀ)v]`` with Q an orthonormal basis of AS for random
    signs S [p, products/3]. For a semidefinite A the error falls as 1/products, where Hutchinson's
    falls as 1/√products (Meyer, Musco, Musco & Woodruff 2021, algorithm 1). The standard error is
    that of the second term, given Q.

    Raises:
        ConfigError: fewer than 6 products, which leave no two probes.
    """
    if products < 6:
        raise ConfigError(f"hutch_plus_plus needs at least 6 products, not {products}")
    third = products // 3
    q = _range(a, min(third, a.size), seed)
    known = sum((part * (a @ part)).sum() for part in q.split(BLOCK, 1))
    rest = []
    for v in a.probes(products - 2 * third, seed, "hutch++"):
        v = v - q @ (q.T @ v)
        rest.append((v * (a @ v)).sum(0))
    estimate = mean_of(torch.cat(rest))
    return Estimate(known + estimate.value, estimate.stderr)


def _range(a: Operator, rank: int, seed: int) -> Tensor:
    """An orthonormal basis of the range of AS, [p, rank]."""
    return torch.linalg.qr(torch.cat([a @ s for s in a.probes(rank, seed, "sketch")], 1)).Q
