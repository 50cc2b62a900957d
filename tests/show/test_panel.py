"""A figure's file has the figure's own colors, the rare ones approximately."""

from __future__ import annotations

import numpy as np

from truerisk.show.panel import FILE_COLORS, index_colors


def image(rgb):
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]).astype(np.uint8)


def test_few_colors_are_exact():
    rgb = np.random.default_rng(0).integers(0, 6, (40, 30, 3)) * 50 + 5
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) < FILE_COLORS
    assert np.array_equal(np.asarray(index_colors(image(rgb)).convert("RGB")), rgb)


def test_of_many_the_frequent_ones_are_exact_and_the_others_nearest():
    draws = np.random.default_rng(0)
    rgb = np.full((60, 50, 3), 255)
    rgb[10:20] = np.arange(10, 210, 4)[None, :, None] * [1, 0, 1]  # 50 colors, each ten times
    rgb[30:50] = draws.integers(0, 256, (20, 50, 3))
    drawn = np.asarray(index_colors(image(rgb)).convert("RGB")).astype(int)
    assert np.array_equal(drawn[:30], rgb[:30]) and np.array_equal(drawn[50:], rgb[50:])
    palette = np.unique(drawn.reshape(-1, 3), axis=0)
    assert len(palette) == FILE_COLORS
    away = np.linalg.norm(rgb[30:50, :, None] - palette, axis=-1).min(-1)
    assert np.allclose(np.linalg.norm(rgb[30:50] - drawn[30:50], axis=-1), away)
