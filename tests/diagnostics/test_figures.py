"""Every instrument draws what it saw, from the run's folder alone."""

from __future__ import annotations

import pytest
from PIL import Image

from truerisk.assemble import build_diagnostics


@pytest.mark.parametrize(
    "name", ["curvature", "spectrum", "taylor", "flatness", "landscape", "critical_point"]
)
def test_figures_are_drawn_from_the_folder(name, watched, tmp_path):
    result = watched.result
    diagnostic = build_diagnostics(result.config)[name]
    path = tmp_path / f"{name}.png"
    assert diagnostic.draw(result.history[:0], path) is None
    kept = result.run.figures / f"{name}.npz"
    if kept.exists():
        path.with_suffix(".npz").write_bytes(kept.read_bytes())
    assert diagnostic.draw(result.history, path, "title") == path
    assert Image.open(path).convert("L").getextrema()[0] < 60  # there is something dark on it
