"""The Lanczos process."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.calculus.operator import Operator


class Quadrature(NamedTuple):
    """Nodes [k, m] and weights [k, m] with ``Σ weight·f(node) = vᵀf(A)v`` for k unit vectors v.

    Exact for polynomials f up to degree 2m − 1. The nodes are the Ritz values of m steps; each row
    of weights adds up to 1.
    """

    nodes: Tensor
    weights: Tensor


def lanczos(a: Operator, starts: Tensor, steps: int) -> Quadrature:
    """Gauss quadrature by ``steps`` steps of the Lanczos process from each column of [p, k].

    A in the basis of the Krylov space of v is tridiagonal, ``T = QᵀAQ``; its eigenvalues are the
    nodes, the squared first entries of its eigenvectors the weights (Golub & Welsch 1969). The
    basis is kept and made orthogonal twice over at each step, as otherwise it stops being so and
    nodes come out several times (Golub & Meurant 2010, §4.2). All columns move on together, one
    block product a step; the basis takes p·k·steps numbers.
    """
    steps = min(steps, a.size)
    q = starts / starts.norm(dim=0)
    basis, alpha = [q], []
    beta: list[Tensor] = []
    for step in range(steps):
        image = a @ q
        alpha.append((q * image).sum(0))
        if step == steps - 1:
            break
        image = _orthogonal(_orthogonal(image, basis), basis)
        length = image.norm(dim=0)
        # A Krylov space of less than ``steps`` dimensions ends here, up to rounding.
        ended = length <= 10 * a.size**0.5 * a.eps * _scale(alpha, beta)
        length = torch.where(ended, 0, length)
        q = torch.where(ended, 0, image / torch.where(ended, 1, length))
        basis.append(q)
        beta.append(length)
    return _quadrature(torch.stack(alpha, 1), beta)


def _orthogonal(vectors: Tensor, basis: list[Tensor]) -> Tensor:
    for q in basis:
        vectors = vectors - q * (q * vectors).sum(0)
    return vectors


def _scale(alpha: list[Tensor], beta: list[Tensor]) -> Tensor:
    """‖T‖ by its largest entry."""
    return torch.stack(alpha + beta).abs().amax(0)


def _quadrature(alpha: Tensor, beta: list[Tensor]) -> Quadrature:
    t = torch.diag_embed(alpha.double())
    if beta:
        side = torch.stack(beta, 1).double()
        t = t + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    nodes, vectors = torch.linalg.eigh(t)
    return Quadrature(nodes, vectors[:, 0].square())
