"""The minimum along a line on which J is quadratic."""

from __future__ import annotations

import math

from truerisk.optimizer.line_search import Line, Probe


def vertex(line: Line, first: float) -> float | None:
    """t = gᵀd / dᵀHd, where two looks at the line agree that it is a parabola; None elsewhere.

    0 where rounding has it that φ does not fall at all.

    The slope at ``first`` gives the curvature, dᵀHd = (φ'(first) − φ'(0)) / first, which loses less
    to rounding than a difference of values. The values at ``first`` and at the vertex then have
    to be those of the parabola, to half the digits of the weights' precision.

    >>> import torch
    >>> w = torch.tensor([2.0], requires_grad=True)
    >>> def closure():
    ...     w.grad = None
    ...     loss = 5 * (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> with torch.no_grad():
    ...     vertex(Line([w], [torch.tensor([-20.0])], closure, 20.0, -400.0), first=1.0)
    0.1
    """
    end = line.probe(first)
    curvature = (end.slope - line.start.slope) / first
    if not (_agrees(line, end, curvature) and curvature > 0):
        return None
    t = -line.start.slope / curvature
    value = line.value(t)
    if not _agrees(line, Probe(t, value, math.nan), curvature):
        return None
    return t if value <= line.start.value else 0.0


def _agrees(line: Line, probe: Probe, curvature: float) -> bool:
    """Whether a value is that of φ(0) + φ'(0) t + ½ dᵀHd t²."""
    t, start = probe.t, line.start
    expected = start.value + t * start.slope + 0.5 * t**2 * curvature
    rounding = 4 * line.rounding * (abs(start.value) + abs(probe.value))
    error = math.sqrt(line.rounding) * abs(t * start.slope)
    return math.isfinite(expected) and abs(probe.value - expected) <= error + rounding
