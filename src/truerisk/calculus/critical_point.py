"""What kind of critical point w is."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from truerisk.calculus.eigenvalues import extreme_eigenvalues
from truerisk.calculus.gradient import value_and_gradient
from truerisk.calculus.hessian import Hessian
from truerisk.calculus.operator import Operator
from truerisk.calculus.point import Point

Kind = Literal["minimum", "maximum", "saddle", "degenerate", "not stationary"]

WRITTEN_OUT = 256
"""Sizes up to which all eigenvalues are computed."""


class CriticalPoint(NamedTuple):
    """The kind of a point, and what says so.

    ``eigenvalues`` are ascending: all of them, or the two ends of the spectrum. Those within
    ``zero`` count as 0, a gradient within ``stationary`` too.
    """

    kind: Kind
    value: float
    gradient_norm: float
    eigenvalues: Tensor
    stationary: float
    zero: float


def classify(
    point: Point,
    stationary: float | None = None,
    zero: float | None = None,
    limit: int = WRITTEN_OUT,
    eigenvalues: Tensor | None = None,
) -> CriticalPoint:
    """Tell what kind of point w is, by the second-order conditions.

    * ``not stationary``: ``max |∂J| > stationary``.
    * ``minimum``: all eigenvalues of ∇²J are positive; ``maximum``: all are negative.
    * ``saddle``: there are positive and negative ones.
    * ``degenerate``: none of these; some are 0 and the others do not disagree, so second
      derivatives do not tell (x⁴, a monkey saddle, a valley with a flat floor).

    By default ``stationary = ε^⅓ (1 + |J|)``, as in Gill, Murray & Wright, "Practical Optimization"
    (1981), §8.2.3, and ``zero = √ε max(|λ|max, 1 + |J|)``, with ε the rounding unit of the weights'
    dtype: 6e-6 and 1.5e-8 in float64, 5e-3 and 3.5e-4 in float32, where J and λ are of order 1.

    Args:
        point: w and the samples.
        stationary: largest entry of the gradient that counts as 0.
        zero: largest eigenvalue that counts as 0.
        limit: size up to which all eigenvalues are computed; above, the two ends of the spectrum,
            which tell as much.
        eigenvalues: of ∇²J, ascending, where they are known already; at least the two ends.
    """
    value, gradient = value_and_gradient(point)
    scale = 1 + abs(float(value))
    if eigenvalues is None:
        eigenvalues = _eigenvalues(Hessian(point), limit)
    eps = torch.finfo(point.w.dtype).eps
    if stationary is None:
        stationary = eps ** (1 / 3) * scale
    if zero is None:
        zero = eps**0.5 * max(float(eigenvalues.abs().max()), scale)
    steep = bool(gradient.abs().max() > stationary)
    kind: Kind = "not stationary" if steep else _kind(eigenvalues, zero)
    return CriticalPoint(kind, float(value), float(gradient.norm()), eigenvalues, stationary, zero)


def _eigenvalues(h: Operator, limit: int) -> Tensor:
    if h.size <= limit:
        return torch.linalg.eigvalsh(h.dense())
    ends = extreme_eigenvalues(h)
    return torch.cat([ends.smallest.values, ends.largest.values])


def _kind(eigenvalues: Tensor, zero: float) -> Kind:
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    if low > zero:
        return "minimum"
    if high < -zero:
        return "maximum"
    return "saddle" if low < -zero and high > zero else "degenerate"
