"""Trace and diagonal of an operator, estimated from products with random vectors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.objective.operators import BLOCK, SymmetricOperator


class RandomizedEstimate(NamedTuple):
    """An estimate from random probes, and its standard error: scalars, or vectors [p]."""

    value: Tensor
    stderr: Tensor


def average_draws(draws: Tensor) -> RandomizedEstimate:
    """Return the mean over independent draws [k, …], with its standard error s/√k.

    The error of a single draw is nan.

    >>> import torch
    >>> average_draws(torch.tensor([1.0, 2.0, 3.0]))
    RandomizedEstimate(value=tensor(2.), stderr=tensor(0.5774))
    """
    if len(draws) < 2:
        return RandomizedEstimate(draws.mean(0), draws.mean(0) * math.nan)
    return RandomizedEstimate(draws.mean(0), draws.std(0) / math.sqrt(len(draws)))


def hutchinson_trace(a: SymmetricOperator, probes: int = 96, seed: int = 0) -> RandomizedEstimate:
    """Estimate ``tr A = E[vᵀAv]`` for v with independent entries ±1 (Hutchinson 1990).

    The variance of one probe is ``2(‖A‖_F² − Σ aᵢᵢ²)``. One product a probe.

    Args:
        a: A.
        probes: vectors v.
        seed: of the vectors.
    """
    quadratics = [(v * (a @ v)).sum(0) for v in a.probes(probes, seed, "hutchinson")]
    return average_draws(torch.cat(quadratics))


def hutch_plus_plus(a: SymmetricOperator, products: int = 96, seed: int = 0) -> RandomizedEstimate:
    """Estimate the trace, exactly on the span of a third of the products.

    ``tr A = tr QᵀAQ + E[vᵀ(I − QQᵀ)A(I − QQᵀ)v]`` with Q an orthonormal basis of AS for random
    signs S [p, products/3]. For a semidefinite A the error falls as 1/products, where Hutchinson's
    falls as 1/√products (Meyer, Musco, Musco & Woodruff 2021, algorithm 1). The standard error is
    that of the second term, given Q.

    Args:
        a: A.
        products: products with vectors, in all.
        seed: of the vectors.

    Raises:
        ConfigError: fewer than 6 products, which leave no two probes.
    """
    if products < 6:
        raise ConfigError(f"hutch_plus_plus needs at least 6 products, not {products}")
    third = products // 3
    q = _range_basis(a, min(third, a.size), seed)
    known = sum((part * (a @ part)).sum() for part in q.split(BLOCK, 1))
    rest = []
    for v in a.probes(products - 2 * third, seed, "hutch++"):
        v = v - q @ (q.T @ v)
        rest.append((v * (a @ v)).sum(0))
    estimate = average_draws(torch.cat(rest))
    return RandomizedEstimate(known + estimate.value, estimate.stderr)


def _range_basis(a: SymmetricOperator, rank: int, seed: int) -> Tensor:
    """Return an orthonormal basis of the range of AS, [p, rank]."""
    return torch.linalg.qr(torch.cat([a @ s for s in a.probes(rank, seed, "sketch")], 1)).Q


def estimate_diagonal(a: SymmetricOperator, probes: int = 96, seed: int = 0) -> RandomizedEstimate:
    """Estimate ``diag A = E[v ⊙ Av]``, [p], for v with independent entries ±1.

    The variance of entry i for one probe is ``Σ_{j≠i} aᵢⱼ²``: a diagonal A comes out exactly. One
    product a probe, in the memory of a block of them.

    Args:
        a: A.
        probes: vectors v.
        seed: of the vectors.

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
    return RandomizedEstimate(off + (0 if shift is None else shift), (variance / probes).sqrt())
