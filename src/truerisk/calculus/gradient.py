"""First derivatives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from truerisk.calculus.point import Point
from truerisk.core.batch import Batch


class Slope(NamedTuple):
    """J(w), a scalar, and ∇J(w), [p]."""

    value: Tensor
    gradient: Tensor


def gradient(point: Point) -> Tensor:
    """``∇J(w) = 1/N Σ ∇l(w; xᵢ, yᵢ) + Σ λ∇R(w)``, of shape [p]; reduction: mean over N samples."""
    return point.mean(lambda batch: grad(lambda w: point.evaluate(w, batch).objective)(point.w))


def value_and_gradient(point: Point) -> Slope:
    """J and ∇J in one pass over the data."""

    def both(batch: Batch) -> Tensor:
        slope, value = grad_and_value(lambda w: point.evaluate(w, batch).objective)(point.w)
        return torch.cat([value.reshape(1), slope])

    value, slope = point.mean(both).split([1, point.space.size])
    return Slope(value.squeeze(0), slope)


def directional_derivative(point: Point, direction: Tensor) -> Tensor:
    """``d/dt J(w + t v) at t = 0 = ∇J(w)ᵀv``, a scalar; v is not normalised."""
    return gradient(point) @ direction
