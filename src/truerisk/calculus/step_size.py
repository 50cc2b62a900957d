"""The optimal step size."""

from __future__ import annotations

import math

from torch import Tensor

from truerisk.calculus.gradient import gradient
from truerisk.calculus.hessian import Hessian
from truerisk.calculus.operator import Operator
from truerisk.calculus.point import Point


def optimal_step_size(
    point: Point, direction: Tensor | None = None, curvature: Operator | None = None
) -> float:
    """The step length that minimises the second-order model of J along a direction d.

    ``α* = −gᵀd / dᵀHd``, and ``gᵀg / gᵀHg`` for the steepest descent d = −g (Cauchy 1847). Infinite
    where the model has no minimum along d (dᵀHd ≤ 0 and J falls), nan where J is level (gᵀd = 0),
    and negative where d leads uphill.

    Args:
        point: w and the samples.
        direction: d [p]; −g by default.
        curvature: in place of the Hessian, such as the Gauss–Newton matrix.
    """
    g = gradient(point)
    d = -g if direction is None else direction
    h = Hessian(point) if curvature is None else curvature
    slope, bend = float(g @ d), float(d @ (h @ d))
    if slope == 0:
        return math.nan
    return -slope / bend if bend > 0 else math.copysign(math.inf, -slope)
