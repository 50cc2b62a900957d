"""The claims on double descent, and what turns them."""

from __future__ import annotations

import numpy as np

from truerisk.optimizer import newton
from truerisk.reproductions.double_descent import measure_descents
from truerisk.verdicts import write_grids

MANY = write_grids(
    {
        **{"seed": range(6), "data.source.num_samples": 120, "data.val": 20},
        **{"data.source.signal": 2.0, "data.source.dimension": 125, "model.bias": False},
        **{"trainer.precision": "64-true", "trainer.max_epochs": 1, "risk.every": 1000000},
    }
)


def test_no_claim_fails(at):
    """Eight training sets decide next to nothing near γ = 1."""
    assert at.quick("double_descent").code == 0


def test_ridge_in_place_of_the_least_norm(at, monkeypatch):
    """It has no peak."""
    solve = newton.solve_positive_definite
    monkeypatch.setattr(
        newton, "solve_positive_definite", lambda h, g, damping, eps: solve(h, g, 1.0, eps)
    )
    assert at.study("double_descent", "above", MANY) == "does not hold"


def test_descents_are_told_from_places_of_the_other_seeds():
    curves = np.array([[4.0, 1.0, 10.0, 2.0], [4.0, 2.0, 20.0, 2.0]])
    rises, falls = measure_descents(curves)
    np.testing.assert_allclose(rises, [1.0, 1.0])
    np.testing.assert_allclose(falls, [np.log10(5), 1.0])
