"""Conjugate gradients on a quadratic model, m(p) = gᵀp + ½ pᵀBp."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Leg:
    """One iteration: from ``start`` along ``direction``, as far as ``length``.

    Along it the model is value + t·slope + ½t²·curvature; where the curvature is not positive there
    is no end to it, and ``length`` is infinite.
    """

    start: Tensor
    direction: Tensor
    length: float
    value: float
    slope: float
    curvature: float

    def model_value(self, t: float) -> float:
        """m(start + t·direction)."""
        return self.value + t * self.slope + 0.5 * t * t * self.curvature


@dataclass(frozen=True)
class Trial:
    """A step p, what the model says of it, and whether the radius cut it short."""

    step: Tensor
    predicted: float
    on_edge: bool


@dataclass
class Path:
    """The iterates of conjugate gradients from p = 0, which move ever further away from it.

    As their norms grow (Steihaug 1983, theorem 2.1), the step for a smaller radius is found on the
    same path, without another product.
    """

    legs: list[Leg] = field(default_factory=list)

    @property
    def negative(self) -> bool:
        """Whether it ends in a direction of no positive curvature."""
        return bool(self.legs) and math.isinf(self.legs[-1].length)

    def leave_ball(self, radius: float) -> Trial:
        """The end of the path, or the point where it leaves the ball of ``radius``."""
        for leg in self.legs:
            edge = distance_to_edge(leg.start, leg.direction, radius)
            if edge <= leg.length:
                return Trial(leg.start + edge * leg.direction, leg.model_value(edge), True)
        leg = self.legs[-1]
        return Trial(leg.start + leg.length * leg.direction, leg.model_value(leg.length), False)

    def end_before_negative(self) -> Tensor:
        """The end of the path before a direction of no positive curvature; −g if that is first."""
        leg = self.legs[-1]
        if not math.isinf(leg.length):
            return leg.start + leg.length * leg.direction
        # the first direction is −g, and the first start zero
        if len(self.legs) > 1:
            return leg.start
        return leg.direction


def distance_to_edge(start: Tensor, direction: Tensor, radius: float) -> float:
    """Return the t ≥ 0 with ‖start + t·direction‖ = radius, for a start within it.

    Args:
        start: a vector [p].
        direction: a vector [p].
        radius: of the ball around 0.

    >>> distance_to_edge(torch.tensor([0.0, 3.0]), torch.tensor([2.0, 0.0]), 5.0)
    2.0
    """
    if math.isinf(radius):
        return math.inf
    a, b = direction.dot(direction).item(), start.dot(direction).item()
    c = start.dot(start).item() - radius**2
    root = math.sqrt(max(b * b - a * c, 0.0))
    # the form without cancellation, of the two
    return max(-c / (b + root) if b > 0 else (root - b) / a, 0.0)


def truncated_path(
    product: Product, gradient: Tensor, tolerance: float, limit: int, radius: float = math.inf
) -> Path:
    """Run conjugate gradients until the residual is ``tolerance``, or the path leaves the ball.

    It ends as well after ``limit`` products, and with a direction of no positive curvature
    (Steihaug 1983; Nocedal & Wright 2006, algorithm 7.2).

    Args:
        product: v ↦ Bv.
        gradient: g [p].
        tolerance: the norm of the residual g + Bp at which it ends.
        limit: most products.
        radius: of the ball.

    >>> path = truncated_path(lambda v: 2 * v, torch.tensor([2.0, 0.0]), 1e-6, 10)
    >>> path.leave_ball(math.inf).step, path.leave_ball(0.5).step
    (tensor([-1.,  0.]), tensor([-0.5000,  0.0000]))
    """
    path, p, value = Path(), torch.zeros_like(gradient), 0.0
    residual, direction = gradient.clone(), -gradient
    size = residual.dot(residual).item()
    for _ in range(limit):
        bent = product(direction)
        curvature = direction.dot(bent).item()
        length = math.inf
        if curvature > curvature_rounding(direction, bent):
            length = size / curvature
        leg = Leg(p, direction, length, value, -size, curvature)
        path.legs.append(leg)
        # what lies beyond the ball or along negative curvature needs no more products
        if distance_to_edge(p, direction, radius) <= length or math.isinf(length):
            break
        p, value = p + length * direction, leg.model_value(length)
        residual = residual + length * bent
        previous, size = size, residual.dot(residual).item()
        if math.sqrt(size) <= tolerance:
            break
        direction = (size / previous) * direction - residual
    return path


def curvature_rounding(direction: Tensor, bent: Tensor) -> float:
    """Return the curvature that cannot be told from zero, by rounding.

    Args:
        direction: v [p].
        bent: Bv [p].
    """
    return torch.finfo(direction.dtype).eps * (direction.norm() * bent.norm()).item()


def minimize_by_cg(
    product: Product,
    gradient: Tensor,
    start: Tensor,
    limit: int,
    progress: float = 5e-4,
) -> list[Tensor]:
    """Run conjugate gradients towards the minimum of the model; return some iterates and the last.

    Ends when the model gains less than ``progress`` an iteration over the last tenth of them, at
    least ten (Martens 2010, §4.4), and at a direction of no positive curvature. Kept are iterates
    number 1, 2, 3, 4, 6, 8, … ⌈1.3ʲ⌉ (ibid., §4.6), as J may be lower at an earlier one.

    Args:
        product: v ↦ Bv.
        gradient: g [p].
        start: the first p [p].
        limit: most products.
        progress: gain an iteration, as a share of the model, below which it ends.

    >>> iterates = minimize_by_cg(lambda v: 2 * v, torch.tensor([2.0]), torch.tensor([0.0]), 10)
    >>> iterates[-1]
    tensor([-1.])
    """
    p = start.clone()
    residual = gradient.clone()
    if bool(p.any()):  # a product is dear
        residual = gradient + product(p)
    values = [0.5 * (p.dot(residual) + p.dot(gradient)).item()]
    direction, size = -residual, residual.dot(residual).item()
    kept, due, first = [], 1.0, size
    for i in range(1, limit + 1):
        bent = product(direction)
        curvature = direction.dot(bent).item()
        if curvature <= curvature_rounding(direction, bent):
            break
        p = p + (size / curvature) * direction
        residual = residual + (size / curvature) * bent
        values.append(0.5 * (p.dot(residual) + p.dot(gradient)).item())
        previous, size = size, residual.dot(residual).item()
        # `size` is the square of the residual's norm, hence that of eps
        done = _is_stalled(values, progress) or size <= first * torch.finfo(p.dtype).eps ** 2
        if i >= due or done or i == limit:
            kept.append(p)
            due = max(due * 1.3, i + 1)
        if done:
            break
        direction = (size / previous) * direction - residual
    return kept


def _is_stalled(values: list[float], progress: float) -> bool:
    last, i = values[-1], len(values) - 1
    back = max(10, i // 10)
    return i > back and last < 0 and values[-1 - back] - last < -back * progress * last
