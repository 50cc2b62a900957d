"""The Jacobian of the outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from truerisk.calculus.curvature import columns
from truerisk.calculus.operator import ENTRIES, check_size
from truerisk.calculus.point import Point
from truerisk.calculus.pullback import pullback
from truerisk.core.batch import Batch


def jacobian(point: Point, limit: int = ENTRIES) -> Tensor:
    """``∂f(xᵢ; w)/∂w`` for every sample, [N, outputs, p].

    Raises:
        ConfigError: it would hold more than ``limit`` numbers.
    """
    parts: list[Tensor] = []

    def rows(batch: Batch) -> Tensor:
        outputs, pull = pullback(lambda w: point.outputs(w, batch), point.w)
        held = sum(part.numel() for part in parts)
        check_size("a Jacobian", held + outputs.numel() * point.space.size, limit, point.w.dtype)
        units = torch.eye(outputs.numel(), dtype=outputs.dtype, device=outputs.device)
        found = columns(lambda u: pull(u.view_as(outputs)), units)
        return found.T.reshape(*outputs.shape, point.space.size)

    for _, part in point.map(rows):
        parts.append(part)
    return torch.cat(parts)
