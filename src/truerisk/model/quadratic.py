"""Quadratic functions: the bowl of any spectrum, the paraboloid, Booth's function."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.model.function import Function, Range, Scalable, repeated


class QuadraticBowl(Function):
    """f(w) = ½ wᵀ H w with H = Q diag(λ) Qᵀ.

    Without a ``spectrum`` the eigenvalues run from 1/condition to 1 in equal ratios. Gradient
    descent with step η takes the coordinate along the eigenvector of λ to (1 − ηλ)ᵗ of its first
    value after t steps.

    With a negative λ there is no minimum; along an eigenvector of λ = 0 every point is one, and
    the distance is measured from the nearest.

    Source: Nocedal & Wright, *Numerical Optimization* (2006), §3.3; the rotation Q is drawn
    uniformly as in Mezzadri, "How to Generate Random Matrices from the Classical Compact Groups",
    Notices of the AMS 54 (2007).

    Args:
        start: w before the first step; repeated until it has ``dimension`` entries.
        dimension: number of variables d.
        condition: λmax/λmin, at least 1.
        spectrum: all d eigenvalues, in place of ``dimension`` and ``condition``.
        rotation: seed of Q; None for Q = I.
        dtype: of ``w`` and H; None for torch's default.

    Raises:
        ConfigError: a number out of range.

    >>> QuadraticBowl([2.0, 1.0], spectrum=[4.0, 0.5]).value(torch.tensor([2.0, 1.0]))
    tensor(8.2500)
    """

    hessian: Tensor

    def __init__(
        self,
        start: list[float],
        dimension: int = 2,
        condition: float = 10.0,
        spectrum: list[float] | None = None,
        rotation: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        values = eigenvalues(dimension, condition, spectrum)
        self.size = len(values)
        super().__init__(repeated(start, self.size), dtype)
        self.eigenvalues, self.eigenvectors = values, rotation_matrix(self.size, rotation)
        hessian = (self.eigenvectors * values) @ self.eigenvectors.T
        self.register_buffer("hessian", hessian.to(self.w.dtype))
        self.bounded = bool((values >= 0).all())
        self.minimum = 0.0 if self.bounded else None
        self.region = window(self.w.detach())

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        return 0.5 * (w * (w @ self.hessian)).sum(-1)

    @property
    def minima(self) -> Tensor:
        """The origin, [1, d], unless an eigenvalue is negative."""
        return torch.zeros(int(self.bounded), self.size, dtype=torch.float64)

    def distance(self, w: Tensor) -> Tensor:
        """The Euclidean distance from the nearest minimizer, [...]."""
        if not self.bounded:
            return super().distance(w)
        along = w.detach().cpu().double() @ self.eigenvectors
        return torch.linalg.vector_norm(along[..., self.eigenvalues > 0], dim=-1)


def eigenvalues(dimension: int, condition: float, spectrum: list[float] | None) -> Tensor:
    """The spectrum [d] in float64, as given or in equal ratios from 1/condition to 1."""
    if spectrum is not None:
        if not spectrum:
            raise ConfigError("model.spectrum is empty: give the eigenvalues, or null")
        top = torch.finfo(torch.float64).max
        numbers = [check_float("model.spectrum", number, -top, top) for number in spectrum]
        return torch.tensor(numbers, dtype=torch.float64)
    size = check_int("model.dimension", dimension)
    lowest = -math.log10(check_float("model.condition", condition, 1.0))
    if not math.isfinite(lowest):
        raise ConfigError("model.condition must be finite; for a flat direction give a spectrum")
    return torch.logspace(lowest, 0.0, size, dtype=torch.float64)


def rotation_matrix(size: int, seed: int | None) -> Tensor:
    """An orthogonal matrix [d, d] in float64, uniform under rotations; the identity for no seed."""
    if seed is None:
        return torch.eye(size, dtype=torch.float64)
    draw = torch.Generator().manual_seed(check_int("model.rotation", seed, 0))
    q, r = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    return q * r.diagonal().sign()


def window(start: Tensor) -> Sequence[Range]:
    """A square around the origin that holds the start."""
    half = 1.3 * float(start.abs().max()) or 1.0
    return [(-half, half)] * 2


class Paraboloid(Scalable):
    """f(w) = Σ wᵢ². Minimum 0 at the origin.

    >>> Paraboloid([1.0]).value(torch.tensor([3.0, 4.0]))
    tensor(25.)
    """

    minimum = 0.0

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        return w.square().sum(-1)


class Booth(Function):
    """f(x, y) = (x + 2y − 7)² + (2x + y − 5)². Minimum 0 at (1, 3); Hessian eigenvalues 2 and 18.

    Source: Jamil & Yang, "A Literature Survey of Benchmark Functions For Global Optimization
    Problems", Int. J. of Mathematical Modelling and Numerical Optimisation 4 (2013), no. 17.

    >>> Booth([0.0, 0.0]).value(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    tensor([74.,  0.])
    """

    known = ((1.0, 3.0),)
    minimum = 0.0
    region = ((-10.0, 10.0), (-10.0, 10.0))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return (x + 2 * y - 7).square() + (2 * x + y - 5).square()
