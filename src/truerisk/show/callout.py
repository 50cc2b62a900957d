"""Where on a drawing a name can stand: beside its line, and clear of everything else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

CANDIDATES = 60
"""Points of a line beside which its name may stand."""

WIDE = 0.72
"""Width of a letter, in its height."""


class Box(NamedTuple):
    """A rectangle, in points of the drawing."""

    left: float
    bottom: float
    right: float
    top: float

    def grown(self, by: float) -> Box:
        """The rectangle with a margin."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which of the points [n, 2] lie in it."""
        x, y = points.T
        return (self.left < x) & (x < self.right) & (self.bottom < y) & (y < self.top)

    def overlap(self, other: Box) -> float:
        """The area two rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)


def box(text: str, size: float, anchor: np.ndarray, side: tuple[int, int]) -> Box:
    """The rectangle of a text that stands on one side (−1, 0 or 1 either way) of a point.

    >>> box("gd", 10.0, np.zeros(2), (1, 0))
    Box(left=8.0, bottom=-6.0, right=22.4, top=6.0)
    """
    width, height, gap = WIDE * size * len(text), 1.2 * size, 0.8 * size
    x = anchor[0] + side[0] * (gap + width / 2)
    y = anchor[1] + side[1] * (gap + height / 2)
    return Box(*(float(v) for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))


def dense(points: np.ndarray, apart: float) -> np.ndarray:
    """Points along a polyline [n, 2], no further than ``apart`` from each other."""
    pieces = [points[:1]]
    for a, b in pairwise(points):
        count = int(np.ceil(np.linalg.norm(b - a) / apart))
        pieces.append(a + (b - a) * np.linspace(0, 1, max(count, 1) + 1)[1:, None])
    return np.concatenate(pieces)


def place(
    texts: Sequence[str], lines: Sequence[np.ndarray], frame: Box, size: float, marks: np.ndarray
) -> list[Box | None]:
    """A rectangle for the name of each line, or None where a line has no point in the frame.

    Args:
        texts: the names.
        lines: polylines [n, 2], in points of the drawing.
        frame: where names may stand.
        size: height of a letter, in points.
        marks: other points [n, 2] to keep clear of.
    """
    lines = [dense(line, size / 2) for line in lines]
    taken: list[Box] = []
    found: list[Box | None] = []
    for i, (text, line) in enumerate(zip(texts, lines, strict=True)):
        inside = line[frame.holds(line)]
        others = np.concatenate([marks, *lines[:i], *lines[i + 1 :]])
        step = max(1, len(inside) // CANDIDATES)
        sides = [side for side in product((-1, 0, 1), (-1, 0, 1)) if any(side)]
        boxes = [box(text, size, anchor, side) for anchor in inside[::step] for side in sides]
        costs = [_cost(b, line, others, taken, frame, size) for b in boxes]
        best = boxes[int(np.argmin(costs))] if boxes else None
        found.append(best)
        taken += [best] if best is not None else []
    return found


def _cost(
    spot: Box, own: np.ndarray, others: np.ndarray, taken: list[Box], frame: Box, size: float
) -> float:
    """How much a name would hide, leave the frame, or seem to belong to another line."""
    area = (spot.right - spot.left) * (spot.top - spot.bottom)
    hidden = spot.grown(0.2 * size).holds(np.concatenate([own, others])).sum()
    near = spot.grown(size).holds(others).sum()
    shared = sum(spot.grown(0.3 * size).overlap(other) for other in taken)
    outside = area - spot.overlap(frame)
    return float(3 * hidden + near + 1000 * shared / area + 1000 * outside / area)
