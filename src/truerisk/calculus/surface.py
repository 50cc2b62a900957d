"""J on a line or a plane through w."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.calculus.point import Point


def line(point: Point, direction: Tensor, at: Sequence[float] | Tensor) -> Tensor:
    """``J(w + t d)`` for each t, [n]."""
    return torch.stack([point.moved(point.w + float(t) * direction).value() for t in at])


def plane(
    point: Point, directions: Tensor, x: Sequence[float] | Tensor, y: Sequence[float] | Tensor
) -> Tensor:
    """``J(w + x d₁ + y d₂)`` for all x and y, [len(y), len(x)], with d [p, 2]."""
    first, second = directions.unbind(1)
    rows = [line(point.moved(point.w + float(t) * second), first, x) for t in y]
    return torch.stack(rows)
