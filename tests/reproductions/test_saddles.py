"""The claims on saddles, and what turns them."""

from __future__ import annotations

from truerisk.objective import convexity
from truerisk.optimizer import GD

DESCENT = "hydra.sweeper.grids=[{model.start:'[1.0,1e-1],[1.0,1e-4]',trainer.max_epochs:110}]"
POINTS = (
    "hydra.sweeper.grids=[{diagnostics:'[critical_point]',optimizer.lr:0.0,trainer.max_epochs:1,"
    "model:'saddle,paraboloid',model.start:'[0.0,0.0]'}]"
)


def test_all_claims_hold(at):
    done = at.quick("saddles")
    assert done.code == 0
    assert "inconclusive" not in done.page.partition("<nav>")[2]


def test_descent_with_some_momentum(at, monkeypatch):
    """It leaves sooner than a step of its length lets it."""
    step = GD.step

    def longer(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.06
        return step(self, closure)

    monkeypatch.setattr(GD, "step", longer)
    assert at.study("saddles", "stalls_as_log", DESCENT) == "does not hold"


def test_a_saddle_that_is_taken_for_a_minimum(at, monkeypatch):
    monkeypatch.setattr(convexity, "_point_kind", lambda eigenvalues, zero: "minimum")
    assert at.study("saddles", "kinds_are_right", POINTS) == "does not hold"
