"""The claims on backtracking, and what turns them."""

from __future__ import annotations

import pytest

from truerisk.optimizer import GDBacktracking, line_search
from truerisk.reproductions.backtracking import bound_curvature

BOWL = (
    "hydra.sweeper.grids=[{model:quadratic_bowl,model.spectrum:'[1,10]',model.rotation:0,"
    "model.start:'[1,1]'}]"
)


def test_all_claims_hold(at):
    assert at.quick("backtracking").code == 0


def test_a_search_that_is_content_with_any_decrease(at, monkeypatch):
    """It takes 0.19 = 2/λmax less a bit where that is the first to decrease."""
    search = GDBacktracking.search

    def lax(self, line):
        self.group["alpha"], self.group["lr"] = 0.0, 0.19
        return search(self, line)

    monkeypatch.setattr(GDBacktracking, "search", lax)
    assert at.study("backtracking", "armijo", BOWL) == "does not hold"


def test_a_search_that_halves_once_too_often(at, monkeypatch):
    found = line_search.backtrack

    def shorter(*args):
        return found(*args) / 4

    monkeypatch.setattr("truerisk.optimizer.gradient_descent.backtrack", shorter)
    assert at.study("backtracking", "halvings", BOWL) == "does not hold"


def test_curvature_at_the_minimum_alone():
    """Of a set that is hardly more than the minimum, where both eigenvalues are known."""
    import math

    found = bound_curvature((-math.log(2) / 2 + 1e-3, 0.0))
    scale = math.sqrt(2) * math.exp(-0.1)
    assert found.least == pytest.approx(2 * scale, rel=0.02)
    assert found.largest == pytest.approx(9 * scale, rel=0.02)
