"""Figures as files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, as a whole or not at all."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    aside, drawn = path.with_name(f".{path.name}"), BytesIO()
    figure.savefig(drawn, format="png")
    # shades and lines need no more than 128 colors, which take a third of the space
    Image.open(drawn).convert("RGB").quantize(128).save(aside, format="png", optimize=True)
    aside.replace(path)
    return path
