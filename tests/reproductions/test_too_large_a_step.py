"""The claims on the largest stable step length, and what turns them."""

from __future__ import annotations

from truerisk.model import Cubic
from truerisk.optimizer import GD

BOWL = (
    "hydra.sweeper.grids=[{model.dimension:3,model.condition:4,model.rotation:0,"
    "optimizer.lr:'1.999,2.001',trainer.max_epochs:60}]"
)
CUBIC = "hydra.sweeper.grids=[{model:cubic,model.start:'[1.1]',optimizer.lr:0.1}]"


def test_all_claims_hold(at):
    assert at.quick("too_large_a_step").code == 0


def test_descent_that_shortens_its_steps(at, monkeypatch):
    """What is just too long is stable then."""
    step = GD.step

    def shorter(self, closure=None):
        value = step(self, closure)
        for group in self.param_groups:
            group["lr"] *= 0.999
        return value

    monkeypatch.setattr(GD, "step", shorter)
    assert at.study("too_large_a_step", "diverges_above_the_limit", BOWL) == "does not hold"


def test_a_cubic_that_is_taken_for_bounded(at, monkeypatch):
    monkeypatch.setattr(Cubic, "bounded", True)
    assert at.study("too_large_a_step", "cubic_is_unbounded", CUBIC) == "does not hold"
