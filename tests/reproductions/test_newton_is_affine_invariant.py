"""The claims on Newton's method, and what turns them."""

from __future__ import annotations

import numpy as np
import torch
import yaml

from truerisk.optimizer import Newton, newton

STARTS = (
    "hydra.sweeper.grids=[{model.start:'[2,-1]'},"
    "{model.change:'[[2,1],[0,4]]',model.start:'[1.125,-0.25]'}]"
)
NEAR = "hydra.sweeper.grids=[{model.start:'[-0.3,0.05]'}]"


def test_all_claims_hold(at):
    assert at.quick("newton_is_affine_invariant").code == 0


def test_a_hessian_that_is_damped(at, monkeypatch):
    """Adding to its diagonal is not the same in other variables."""
    solve = newton.solve_positive_definite

    def damped(hessian, gradient, damping, eps):
        return solve(hessian + torch.eye(2).to(hessian), gradient, damping, eps)

    monkeypatch.setattr(newton, "solve_positive_definite", damped)
    claims = "newton_is_affine_invariant"
    assert at.study(claims, "newton_corresponds", STARTS) == "does not hold"


def test_a_step_that_stops_short(at, monkeypatch):
    """It converges still, but by a factor a step."""
    direction = Newton._newton_direction
    monkeypatch.setattr(
        Newton, "_newton_direction", lambda self, oracle: 0.9 * direction(self, oracle)
    )
    assert at.study("newton_is_affine_invariant", "quadratic_phase", NEAR) == "does not hold"


def test_starts_correspond(study_grids):
    """They are worked out by hand in the study: each v₀ has a w₀ = Tv₀ among those without T."""

    def starts(grid):
        return [
            tuple(row) for row in np.array(yaml.safe_load(f"[{grid['model.start']}]"), dtype=float)
        ]

    grids = study_grids("newton_is_affine_invariant")
    changed = [grid for grid in grids if "model.change" in grid]
    for grid in changed:
        same = [g for g in grids if g.get("optimizer") == grid.get("optimizer")]
        plain = [s for g in same if "model.change" not in g for s in starts(g)]
        change = np.array(yaml.safe_load(grid["model.change"]), dtype=float)
        assert {tuple(change @ start) for start in starts(grid)} <= set(plain)
    assert len(changed) == 3
