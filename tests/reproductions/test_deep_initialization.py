"""The claims on deep networks' initial weights, and what turns them."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from truerisk.reproductions.deep_initialization import LOOK, predict_residual, predict_tanh
from truerisk.verdicts import write_grids

HE = write_grids({"initializer": "kaiming_normal", "seed": range(3), **LOOK})


def test_no_claim_fails(at):
    """Three seeds of 100 units leave the rates open; training is not in the quick study."""
    done = at.quick("deep_initialization")
    assert done.code == 0


def test_xavier_in_place_of_he(at, monkeypatch):
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda w, **_: nn.init.xavier_normal_(w))
    assert at.study("deep_initialization", "he_keeps", HE) == "does not hold"


def test_the_tanh_of_wide_layers():
    """Small signals keep theirs but for −2q²; they fall as 1/(2L) in the end."""
    small = predict_tanh(1e-4, 2)
    assert small[1] == pytest.approx(1e-4 - 2e-8, rel=1e-6)
    many = predict_tanh(0.5, 4000)
    assert 1 / many[-1] == pytest.approx(2 * 4000, rel=0.02)
    assert np.all(np.diff(many) < 0)


def test_residual_layers_that_grow_less(at, monkeypatch):
    """Xavier's weights, half of what they are said to be."""
    xavier = nn.init.xavier_normal_
    monkeypatch.setattr(nn.init, "xavier_normal_", lambda w, **_: xavier(w, gain=0.5))
    settings = {"initializer": "xavier_normal", "model": "mlp_residual", "seed": range(3)}
    grid = write_grids({**settings, **LOOK})
    assert at.study("deep_initialization", "residual_grows", grid) == "does not hold"


def test_the_residual_of_wide_layers():
    """Of inputs whose mean is 0, the second layer adds half of σ²q."""
    squares = predict_residual(2.0, 0.0, 1.0, 3)
    assert squares.tolist() == pytest.approx([2.0, 1.0, 1.5])
