"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, as a whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    canvas, aside = FigureCanvasAgg(figure), path.with_name(f".{path.name}")
    canvas.draw()
    # shades and lines need no more than 128 colors, which take a third of the space
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(128).save(aside, format="png")
    aside.replace(path)
    return path
