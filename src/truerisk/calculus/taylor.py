"""The second-order Taylor polynomial."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from truerisk.calculus.gradient import value_and_gradient
from truerisk.calculus.hessian import Hessian
from truerisk.calculus.operator import Operator
from truerisk.calculus.point import Point


class Taylor(NamedTuple):
    """``J(w + t s) ≈ J + t ∇Jᵀs + ½ t² sᵀ∇²J s``, with its three coefficients.

    ``slope`` and ``curvature`` are ∇Jᵀs and sᵀ∇²J s, for s as it was given.

    >>> import torch
    >>> along = Taylor(torch.tensor(1.0), torch.tensor(-2.0), torch.tensor(4.0))
    >>> along.first(0.5).item(), along.second(0.5).item()
    (0.0, 0.5)
    """

    value: Tensor
    slope: Tensor
    curvature: Tensor

    def first(self, t: float = 1.0) -> Tensor:
        """J + t ∇Jᵀs: the prediction to first order, off by O(t²)."""
        return self.value + t * self.slope

    def second(self, t: float = 1.0) -> Tensor:
        """J + t ∇Jᵀs + ½ t² sᵀ∇²J s: the prediction to second order, off by O(t³)."""
        return self.first(t) + 0.5 * t**2 * self.curvature


def taylor(point: Point, step: Tensor, curvature: Operator | None = None) -> Taylor:
    """What J does along ``step`` [p], to second order; two passes over the data.

    With another ``curvature``, such as the Gauss–Newton matrix, it is that method's model of J.
    """
    value, gradient = value_and_gradient(point)
    image = (Hessian(point) if curvature is None else curvature) @ step
    return Taylor(value, gradient @ step, step @ image)
