"""The claims on sharpness, and what turns them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truerisk.reproductions import sharp_minima
from truerisk.verdicts import write_grids

PART = (
    "seed=0",
    write_grids(
        {
            **{"data.batch_size": 500, "trainer.max_epochs": 1, "model.activation": "tanh"},
            "diagnostics.flatness.every.epochs": 1,
        }
    ),
)


def test_no_claim_fails(at):
    """The quick study has what scaling layers does."""
    done = at.quick("sharp_minima")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_a_network_without_relu(at):
    """Scaled layers are another function then."""
    assert at.study("sharp_minima", "same_function", *PART) == "does not hold"


def test_at_the_same_train_risk(monkeypatch):
    """Sharpness that goes as the square of the train risk, seen at 0.08 and then at 0.005."""
    risks = np.array([1.0, 0.08, 0.005])
    series = {"risk/train": risks, "box": 3 * risks**2}
    monkeypatch.setattr(sharp_minima, "read_series", lambda run, name: series[name])
    assert sharp_minima.read_when_solved(None, "box") == pytest.approx(3 * 0.02**2)
    series["risk/train"] = np.array([1.0, 0.08, 0.03])
    assert math.isnan(sharp_minima.read_when_solved(None, "box"))
