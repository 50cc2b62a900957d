"""A numerical check of convexity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.calculus.point import Point
from truerisk.core import rng


class Convexity(NamedTuple):
    """Jensen gaps [k] of k segments, and the size up to which one may be rounding."""

    gaps: Tensor
    tolerance: Tensor

    @property
    def violations(self) -> int:
        """Segments above which J bulges: any one proves that J is not convex."""
        return int((self.gaps < -self.tolerance).sum())

    @property
    def convex(self) -> bool:
        """Whether no violation was found: evidence, not a proof."""
        return self.violations == 0


def convexity(point: Point, segments: int = 100, radius: float = 1.0, seed: int = 0) -> Convexity:
    """Look for segments on which J lies above its chord.

    ``gap = (1 − t) J(a) + t J(b) − J((1 − t) a + t b)``, which Jensen's inequality makes ≥ 0 for a
    convex J, at t uniform in (0, 1) and a, b normal around w, each coordinate with the standard
    deviation ``radius``. A gap is a violation where it is below ``−32 ε (|J(a)| + |J(b)|)``.
    Three evaluations of J a segment.

    Args:
        point: w and the samples.
        segments: how many segments.
        radius: how far around w to look.
        seed: of the segments.
    """
    draw = rng.named_generator(seed, "convexity")
    found = [_gap(point, radius, draw) for _ in range(segments)]
    gaps, sizes = (torch.stack(part) for part in zip(*found, strict=True))
    return Convexity(gaps, 32 * torch.finfo(point.w.dtype).eps * sizes)


def _gap(point: Point, radius: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The Jensen gap of one random segment, and |J(a)| + |J(b)|."""
    noise = torch.randn(2, point.space.size, generator=draw, dtype=torch.float64)
    a, b = point.w + radius * noise.to(point.w)
    t = float(torch.rand((), generator=draw, dtype=torch.float64))
    at_a, at_b, between = (point.moved(w).value() for w in (a, b, torch.lerp(a, b, t)))
    return torch.lerp(at_a, at_b, t) - between, at_a.abs() + at_b.abs()
