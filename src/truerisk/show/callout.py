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

SIDES = [side for side in product((-1, 0, 1), (-1, 0, 1)) if any(side)]
"""Right, left, above, below a point, and between these."""


class Box(NamedTuple):
    """A rectangle, in points of the drawing."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)

    def with_margin(self, width: float) -> Box:
        """Return the rectangle with a margin all round."""
        return Box(self.left - width, self.bottom - width, self.right + width, self.top + width)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points [n, 2] lie in it, as booleans [n]."""
        x, y = points.T
        return (self.left < x) & (x < self.right) & (self.bottom < y) & (y < self.top)

    def overlap_area(self, other: Box) -> float:
        """Return the area that two rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)


def text_box(text: str, size: float, anchor: np.ndarray, side: tuple[int, int]) -> Box:
    """Compute the rectangle of a text that stands beside a point.

    Args:
        text: what is written.
        size: height of a letter, in points.
        anchor: the point [2].
        side: -1, 0 or 1 to the right, and likewise up.

    >>> text_box("gd", 10.0, np.zeros(2), (1, 0))
    Box(left=8.0, bottom=-6.0, right=22.4, top=6.0)
    """
    # 0.8 letters keep a text clear of a mark's edge, 1.2 of the lines of another text
    width, height, gap = WIDE * size * len(text), 1.2 * size, 0.8 * size
    x = anchor[0] + side[0] * (gap + width / 2)
    y = anchor[1] + side[1] * (gap + height / 2)
    return Box(*(float(v) for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))


def fill_gaps(points: np.ndarray, spacing: float) -> np.ndarray:
    """Add points along a polyline until neighbours are at most ``spacing`` apart.

    Args:
        points: the polyline's [n, 2].
        spacing: the greatest distance.

    Returns:
        The points [m, 2], those given among them.
    """
    pieces = [points[:1]]
    for a, b in pairwise(points):
        count = int(np.ceil(np.linalg.norm(b - a) / spacing))
        # the first point of a piece is the last of the piece before
        pieces.append(a + (b - a) * np.linspace(0, 1, max(count, 1) + 1)[1:, None])
    return np.concatenate(pieces)


def place_names(
    texts: Sequence[str], lines: Sequence[np.ndarray], frame: Box, size: float, marks: np.ndarray
) -> list[Box | None]:
    """Find a rectangle for the name of each line, one after another.

    Args:
        texts: the names.
        lines: polylines [n, 2], in points of the drawing.
        frame: where names may stand.
        size: height of a letter, in points.
        marks: other points [n, 2] to keep clear of.

    Returns:
        A rectangle for each, or None where a line has no point in the frame.
    """
    lines = [fill_gaps(line, size / 2) for line in lines]
    occupied: list[Box] = []
    placed: list[Box | None] = []
    for i, (text, line) in enumerate(zip(texts, lines, strict=True)):
        inside = line[frame.contains(line)]
        if not len(inside):
            placed.append(None)
            continue
        others = np.concatenate([marks, *lines[:i], *lines[i + 1 :]])
        # a long path has thousands of points, and some dozens of them find a free place too
        anchors = inside[:: max(1, len(inside) // CANDIDATES)]
        boxes = [text_box(text, size, anchor, side) for anchor in anchors for side in SIDES]
        costs = [_placement_cost(b, line, others, occupied, frame, size) for b in boxes]
        best = boxes[int(np.argmin(costs))]
        placed.append(best)
        occupied.append(best)
    return placed


def _placement_cost(
    box: Box,
    line: np.ndarray,
    others: np.ndarray,
    occupied: Sequence[Box],
    frame: Box,
    size: float,
) -> float:
    """Weigh how much a name would hide, leave the frame, or seem to belong to another line."""
    hidden = box.with_margin(0.2 * size).contains(np.concatenate([line, others])).sum()
    near = box.with_margin(size).contains(others).sum()
    shared = sum(box.with_margin(0.3 * size).overlap_area(other) for other in occupied)
    # a name may hide a little of a line, but no other name and not the frame: hence the 1000
    outside = box.area - box.overlap_area(frame)
    return float(3 * hidden + near + 1000 * shared / box.area + 1000 * outside / box.area)
