"""Eigenvalues at both ends of the spectrum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.calculus.lanczos import lanczos
from truerisk.calculus.operator import Operator
from truerisk.core import rng

SMALL = 64
"""Sizes up to which the matrix is written out and all eigenvalues are computed."""


class Eigenpairs(NamedTuple):
    """Eigenvalues [k], unit eigenvectors [p, k], and errors [k].

    The error is the residual ‖Av − λv‖: A has an eigenvalue within that distance of λ.
    """

    values: Tensor
    vectors: Tensor
    errors: Tensor


class Extremes(NamedTuple):
    """The smallest eigenvalues, ascending, and the largest, descending (with their signs)."""

    smallest: Eigenpairs
    largest: Eigenpairs


def extreme_eigenvalues(
    a: Operator, count: int = 1, tol: float | None = None, seed: int = 0
) -> Extremes:
    """The ``count`` algebraically smallest and largest eigenvalues, by restarted Lanczos.

    scipy's ``eigsh`` (ARPACK: Lehoucq, Sorensen & Yang 1998) on the products ``A v``, in float64,
    once for each end. ARPACK stops at an error relative to the eigenvalue sought, which never comes
    for one near 0; so A is shifted by about ‖A‖ to the other side first, and ``tol`` is relative
    to ‖A‖.

    Args:
        a: a symmetric operator.
        count: eigenvalues at each end.
        tol: relative to ‖A‖; default: ε^¾ of A's dtype (2e-12 in float64, 6e-6 in float32).
        seed: of the start vector.

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: not within 10 p restarts.

    >>> from truerisk.calculus.operator import Matrix
    >>> ends = extreme_eigenvalues(Matrix(torch.diag(torch.arange(-3.0, 97.0))))
    >>> round(ends.smallest.values.item(), 3), round(ends.largest.values.item(), 3)
    (-3.0, 96.0)
    """
    return Extremes(*(_end(a, count, tol, seed, sign) for sign in (-1, +1)))


def largest_eigenvalues(
    a: Operator, count: int = 1, tol: float | None = None, seed: int = 0
) -> Eigenpairs:
    """The ``count`` algebraically largest ones alone, descending; see `extreme_eigenvalues`."""
    return _end(a, count, tol, seed, +1)


def _end(a: Operator, count: int, tol: float | None, seed: int, sign: int) -> Eigenpairs:
    """The eigenvalues farthest to one side, outermost first."""
    count = min(count, a.size)
    if a.size <= max(SMALL, 2 * count + 1):
        return _written_out(a, count, sign)
    tol = a.eps**0.75 if tol is None else tol
    start = torch.randn(a.size, dtype=torch.float64, generator=rng.named_generator(seed, "eigsh"))
    return _restarted(a, count, tol, start, sign)


def _restarted(a: Operator, count: int, tol: float, start: Tensor, sign: int) -> Eigenpairs:
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import aslinearoperator, eigsh

    shift = sign * norm(a, start)
    shifted = a.to_scipy() + shift * aslinearoperator(eye_array(a.size))
    values, vectors = eigsh(shifted, count, which="LM", tol=tol, v0=start.numpy())
    outermost = (-sign * values).argsort()
    basis = torch.from_numpy(vectors[:, outermost].copy()).to(a.device, a.dtype)
    return _checked(a, torch.from_numpy(values[outermost] - shift).to(basis), basis)


def norm(a: Operator, start: Tensor, steps: int = 8) -> float:
    """‖A‖₂ to within a few percent, from below; 1 for A = 0."""
    nodes = lanczos(a, start.to(a.device, a.dtype).unsqueeze(1), steps).nodes
    return float(nodes.abs().max()) or 1.0


def _written_out(a: Operator, count: int, sign: int) -> Eigenpairs:
    values, vectors = torch.linalg.eigh(a.dense())
    part = torch.arange(a.size)[:count] if sign < 0 else torch.arange(a.size).flip(0)[:count]
    return _checked(a, values[part], vectors[:, part])


def _checked(a: Operator, values: Tensor, vectors: Tensor) -> Eigenpairs:
    return Eigenpairs(values, vectors, (a @ vectors - vectors * values).norm(dim=0))
