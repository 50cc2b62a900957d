"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from truerisk.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

COLORS = 256
"""Of a file: shades and lines need no more, and take a third of the space then."""


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, as a whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with replacing(path) as part:
        indexed(np.asarray(canvas.buffer_rgba())).save(part, format="png")
    return path


def indexed(drawn: np.ndarray) -> Image:
    """An image [height, width, 4] in its most frequent colors, each other in the nearest of them.

    Neighbours are alike in most places of a figure, so colors are counted by runs of pixels.
    """
    from PIL import Image

    flat = drawn.view(np.uint32).ravel()
    begins = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(begins, append=len(flat))
    colors, run = np.unique(flat[begins], return_inverse=True)
    order = np.argsort(-np.bincount(run, lengths), kind="stable")
    rgb = colors.view(np.uint8).reshape(-1, 4)[order, :3]
    code = np.empty(len(colors), np.uint8)
    code[order] = nearest(rgb, rgb[:COLORS])
    image = Image.fromarray(np.repeat(code[run], lengths).reshape(drawn.shape[:2]))
    image.putpalette(rgb[:COLORS].tobytes())
    return image


def nearest(colors: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Which of some colors [m, 3] is nearest to each of others [n, 3].

    >>> nearest(np.array([[9, 9, 9], [250, 0, 0]]), np.array([[255, 0, 0], [0, 0, 0]]))
    array([1, 0])
    """
    there = to.astype(np.float32)
    # ‖c − t‖² without ‖c‖², which is the same for every t
    return np.argmin((there**2).sum(1) - 2 * colors.astype(np.float32) @ there.T, axis=1)
