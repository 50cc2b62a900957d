"""The claims on the condition number, and what turns them."""

from __future__ import annotations

import math

from truerisk.optimizer import GD, GDExact

EXACT = (
    "hydra.sweeper.grids=[{optimizer:gd_exact,model.spectrum:'[1,10]',model.start:'[10,1]',"
    "trainer.max_epochs:5}]"
)


def test_all_claims_hold(at):
    done = at.quick("condition_number")
    assert done.code == 0
    assert "truerisk reproduce condition_number --quick" in done.page


def test_a_line_search_that_stops_early(at, monkeypatch):
    search = GDExact.search
    monkeypatch.setattr(GDExact, "search", lambda self, line: 0.99 * search(self, line))
    assert at.study("condition_number", "exact_line_search", EXACT) == "does not hold"


def test_descent_that_takes_half_its_step(at, monkeypatch):
    """It contracts by less than the best fixed rate would."""
    grid = "hydra.sweeper.grids=[{optimizer:gd,model.condition:8,optimizer.lr:1.7777777777777777}]"
    step = GD.step

    def half(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.5 * 1.7777777777777777
        return step(self, closure)

    monkeypatch.setattr(GD, "step", half)
    assert at.study("condition_number", "best_descent", grid) == "does not hold"


def test_step_lengths_and_momentum_are_the_best(study_grids):
    """They are worked out by hand in the study: Polyak's, from the condition number."""
    grids = [g for g in study_grids("condition_number") if isinstance(g.get("optimizer.lr"), float)]
    descents = [grid for grid in grids if grid["optimizer"] == "gd"]
    heavy_balls = [grid for grid in grids if grid["optimizer"] == "momentum"]
    assert len(descents) == 4 and len(heavy_balls) == 4
    for grid in descents:
        assert math.isclose(grid["optimizer.lr"], 2 / (1 + 1 / grid["model.condition"]))
    for grid in heavy_balls:
        root = grid["model.condition"] ** 0.5
        assert math.isclose(grid["optimizer.lr"], 4 / (1 + 1 / root) ** 2)
        assert math.isclose(grid["optimizer.momentum"], ((root - 1) / (root + 1)) ** 2)
