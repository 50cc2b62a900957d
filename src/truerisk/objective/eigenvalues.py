"""Spectra from products: eigenvalues at both ends, their density, the trace and the diagonal."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.errors import ConfigError
from truerisk.objective.operators import BLOCK, SymmetricOperator


class RandomizedEstimate(NamedTuple):
    """An estimate from random probes, and its standard error: scalars, or vectors [p].

    Args:
        value: the estimate.
        stderr: its standard error, itself estimated from the probes.
        freedom: the degrees of freedom of that, one less than the probes.
    """

    value: Tensor
    stderr: Tensor
    freedom: int

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return Student's interval, ``value ± t(freedom) · stderr``.

        It holds the true value with that probability where vᵀAv is nearly normal. Where a few
        eigenvalues make up the trace it is skewed, and 16 probes hold it in about 90 of 100 cases
        in place of 95.

        Args:
            level: the probability.

        >>> low, high = average_draws(torch.tensor([1.0, 2.0, 3.0])).interval()
        >>> round(low.item(), 3), round(high.item(), 3)
        (-0.484, 4.484)
        """
        reach = student_reach(self.freedom, level) * self.stderr
        return self.value - reach, self.value + reach


def student_reach(freedom: int, level: float = 0.95) -> float:
    """Return how many standard errors an interval reaches to either side.

    Args:
        freedom: degrees of freedom of the standard error.
        level: the probability that the interval holds what is estimated.

    Source: Student 1908, "The Probable Error of a Mean".

    >>> round(student_reach(15), 3), round(student_reach(10**6), 3)
    (2.131, 1.96)
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2)) if freedom > 0 else math.nan


def average_draws(draws: Tensor) -> RandomizedEstimate:
    """Return the mean over independent draws [k, …], with its standard error s/√k.

    The error of a single draw is nan.

    >>> import torch
    >>> average_draws(torch.tensor([1.0, 2.0, 3.0]))
    RandomizedEstimate(value=tensor(2.), stderr=tensor(0.5774), freedom=2)
    """
    freedom = len(draws) - 1
    if not freedom:
        return RandomizedEstimate(draws.mean(0), draws.mean(0) * math.nan, 0)
    return RandomizedEstimate(draws.mean(0), draws.std(0) / math.sqrt(len(draws)), freedom)


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
    # on other vectors than the probes below: the two terms must be independent
    q = _range_basis(a, min(third, a.size), seed)
    known = sum((part * (a @ part)).sum() for part in q.split(BLOCK, 1))
    rest = []
    for v in a.probes(products - 2 * third, seed, "hutch++"):
        v = v - q @ (q.T @ v)
        rest.append((v * (a @ v)).sum(0))
    estimate = average_draws(torch.cat(rest))
    return RandomizedEstimate(known + estimate.value, estimate.stderr, estimate.freedom)


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
    value = off + (0 if shift is None else shift)
    return RandomizedEstimate(value, (variance / probes).sqrt(), probes - 1)


class Quadrature(NamedTuple):
    """Nodes [k, m] and weights [k, m] with ``Σ weight·f(node) = vᵀf(A)v`` for k unit vectors v.

    Exact for polynomials f up to degree 2m − 1. The nodes are the Ritz values of m steps; each row
    of weights adds up to 1.
    """

    nodes: Tensor
    weights: Tensor


def lanczos_quadrature(a: SymmetricOperator, starts: Tensor, steps: int) -> Quadrature:
    """Compute a Gauss quadrature by the Lanczos process from each of k vectors.

    A in the basis of the Krylov space of v is tridiagonal, ``T = QᵀAQ``; its eigenvalues are the
    nodes, the squared first entries of its eigenvectors the weights (Golub & Welsch 1969). The
    basis is kept and made orthogonal twice over at each step, as otherwise it stops being so and
    nodes come out several times (Golub & Meurant 2010, §4.2). All columns move on together, one
    block product a step; the basis takes p·k·steps numbers.

    Args:
        a: A.
        starts: v [p, k], of any length.
        steps: m.
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
        image = _orthogonalize(_orthogonalize(image, basis), basis)
        length = image.norm(dim=0)
        # A Krylov space of less than ``steps`` dimensions ends here, up to rounding.
        ended = length <= 10 * a.size**0.5 * a.eps * _largest_entry(alpha, beta)
        length = torch.where(ended, 0, length)
        q = torch.where(ended, 0, image / torch.where(ended, 1, length))
        basis.append(q)
        beta.append(length)
    return _gauss_quadrature(torch.stack(alpha, 1), beta)


def _orthogonalize(vectors: Tensor, basis: list[Tensor]) -> Tensor:
    for q in basis:
        vectors = vectors - q * (q * vectors).sum(0)
    return vectors


def _largest_entry(alpha: list[Tensor], beta: list[Tensor]) -> Tensor:
    """‖T‖ by its largest entry."""
    return torch.stack(alpha + beta).abs().amax(0)


def _gauss_quadrature(alpha: Tensor, beta: list[Tensor]) -> Quadrature:
    # small, so in float64 whatever the products are in
    t = torch.diag_embed(alpha.double())
    if beta:
        side = torch.stack(beta, 1).double()
        t = t + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    nodes, vectors = torch.linalg.eigh(t)
    return Quadrature(nodes, vectors[:, 0].square())


DENSE_LIMIT = 64
"""Sizes up to which the matrix is written out and all eigenvalues are computed."""


class Eigenpairs(NamedTuple):
    """Eigenvalues [k], unit eigenvectors [p, k], and errors [k].

    The error is the residual ‖Av − λv‖: A has an eigenvalue within that distance of λ.
    """

    values: Tensor
    vectors: Tensor
    errors: Tensor


class ExtremeEigenpairs(NamedTuple):
    """The smallest eigenvalues, ascending, and the largest, descending (with their signs)."""

    smallest: Eigenpairs
    largest: Eigenpairs


def extreme_eigenvalues(
    a: SymmetricOperator, count: int = 1, tol: float | None = None, seed: int = 0
) -> ExtremeEigenpairs:
    """Find the ``count`` algebraically smallest and largest eigenvalues, by restarted Lanczos.

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

    >>> from truerisk.objective import DenseOperator
    >>> ends = extreme_eigenvalues(DenseOperator(torch.diag(torch.arange(-3.0, 97.0))))
    >>> round(ends.smallest.values.item(), 3), round(ends.largest.values.item(), 3)
    (-3.0, 96.0)
    """
    return ExtremeEigenpairs(
        *(_outermost_eigenpairs(a, count, tol, seed, sign) for sign in (-1, +1))
    )


def largest_eigenvalues(
    a: SymmetricOperator, count: int = 1, tol: float | None = None, seed: int = 0
) -> Eigenpairs:
    """Find the ``count`` algebraically largest ones alone, descending.

    Args:
        a: a symmetric operator.
        count: eigenvalues.
        tol: see `extreme_eigenvalues`.
        seed: of the start vector.
    """
    return _outermost_eigenpairs(a, count, tol, seed, +1)


def _outermost_eigenpairs(
    a: SymmetricOperator, count: int, tol: float | None, seed: int, sign: int
) -> Eigenpairs:
    """Find the eigenvalues farthest to one side, outermost first."""
    count = min(count, a.size)
    if a.size <= max(DENSE_LIMIT, 2 * count + 1):
        return _dense_eigenpairs(a, count, sign)
    if tol is None:
        tol = a.eps**0.75
    # a start of our own, so that the same matrix gives the same digits
    start = torch.randn(a.size, dtype=torch.float64, generator=rng.named_generator(seed, "eigsh"))
    return _restarted_lanczos(a, count, tol, start, sign)


def _restarted_lanczos(
    a: SymmetricOperator, count: int, tol: float, start: Tensor, sign: int
) -> Eigenpairs:
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import aslinearoperator, eigsh

    # ARPACK's tolerance is relative to the eigenvalue sought, so one near 0 would never converge
    shift = sign * estimate_norm(a, start)
    shifted = a.to_scipy() + shift * aslinearoperator(eye_array(a.size))
    values, vectors = eigsh(shifted, count, which="LM", tol=tol, v0=start.numpy())
    outermost = (-sign * values).argsort()
    basis = torch.from_numpy(vectors[:, outermost].copy()).to(a.device, a.dtype)
    return _with_residuals(a, torch.from_numpy(values[outermost] - shift).to(basis), basis)


def estimate_norm(a: SymmetricOperator, start: Tensor, steps: int = 8) -> float:
    """Estimate ‖A‖₂ to within a few percent, from below; 1 for A = 0.

    Args:
        a: A.
        start: a random vector [p].
        steps: products.
    """
    nodes = lanczos_quadrature(a, start.to(a.device, a.dtype).unsqueeze(1), steps).nodes
    return float(nodes.abs().max()) or 1.0


def _dense_eigenpairs(a: SymmetricOperator, count: int, sign: int) -> Eigenpairs:
    values, vectors = torch.linalg.eigh(a.dense())
    # eigh's are ascending
    part = torch.arange(a.size)
    if sign > 0:
        part = part.flip(0)
    part = part[:count]
    return _with_residuals(a, values[part], vectors[:, part])


def _with_residuals(a: SymmetricOperator, values: Tensor, vectors: Tensor) -> Eigenpairs:
    return Eigenpairs(values, vectors, (a @ vectors - vectors * values).norm(dim=0))


class SpectralDensity(NamedTuple):
    """The share of the eigenvalues at each place, as k point measures: nodes and weights [k, m]."""

    nodes: Tensor
    weights: Tensor

    def expectation(self, values: Tensor) -> RandomizedEstimate:
        """Estimate ``1/p tr f(A)``, from f of the nodes, [k, m]."""
        return average_draws((self.weights * values).sum(1))

    def moment(self, order: int) -> RandomizedEstimate:
        """Estimate ``1/p tr Aʲ = 1/p Σ λᵢʲ``, unbiased up to order 2m − 1."""
        return self.expectation(self.nodes**order)

    def share(self, low: float = -math.inf, high: float = math.inf) -> RandomizedEstimate:
        """Estimate the share of eigenvalues in [low, high].

        Args:
            low: the lower end.
            high: the upper end.
        """
        return self.expectation(((low <= self.nodes) & (self.nodes <= high)).double())

    def on(self, grid: Tensor, width: float | None = None) -> Tensor:
        """Evaluate the density, smoothed by a normal one: ``1/k Σ weight · N(λ; node, width²)``.

        Args:
            grid: λ, [g].
            width: standard deviation; default: 1 % of the spectrum's extent.

        Returns:
            The density, [g].
        """
        extent = float(self.nodes.max() - self.nodes.min()) or 1.0
        if width is None:
            width = 0.01 * extent
        z = (grid.to(self.nodes)[:, None] - self.nodes.flatten()) / width
        bells = (-0.5 * z.square()).exp() / (width * math.sqrt(2 * math.pi))
        return bells @ self.weights.flatten() / len(self.nodes)


def spectral_density(
    a: SymmetricOperator,
    probes: int = 8,
    steps: int = 64,
    seed: int = 0,
    together: int | None = None,
) -> SpectralDensity:
    """Estimate the density of the eigenvalues by stochastic Lanczos quadrature.

    ``φ(λ) = 1/p Σ δ(λ − λᵢ) = E[vᵀδ(λ − A)v]`` for v with independent entries ±1/√p; each is
    integrated by the Gauss quadrature of ``steps`` Lanczos steps.

    Sources: Lin, Saad & Yang, "Approximating Spectral Densities of Large Matrices", SIAM Review 58
    (2016), §3.2; Ghorbani, Krishnan & Xiao, "An Investigation into Neural Net Optimization via
    Hessian Eigenvalue Density", ICML 2019, §2.

    Args:
        a: a symmetric operator.
        probes: k vectors v; the standard error falls as 1/√k.
        steps: m products for each v; isolated eigenvalues at both ends come out sharply.
        seed: of the vectors.
        together: vectors that move on in one pass over the data; all of them by default. The memory
            is p·steps·together numbers.
    """
    parts = []
    for block in a.probes(probes, seed, "density"):
        for starts in block.split(together or probes, 1):
            parts.append(lanczos_quadrature(a, starts, steps))
    return SpectralDensity(*(torch.cat(part) for part in zip(*parts, strict=True)))
