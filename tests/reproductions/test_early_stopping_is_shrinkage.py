"""The claims on early stopping, and what turns them."""

from __future__ import annotations

import math

from truerisk.optimizer import GD
from truerisk.regularizer import L2

DESCENT = "{trainer.max_epochs:30}"
RIDGE = (
    "{optimizer:newton,optimizer.lr:1.0,trainer.max_epochs:1,regularizer:'[l2]',"
    "regularizer.l2.coefficient:3.3333333333333335}"
)
PAIR = ("seed=range(2)", f"hydra.sweeper.grids=[{DESCENT},{RIDGE}]", "hydra/launcher=basic")


def test_all_claims_hold(at):
    assert at.quick("early_stopping_is_shrinkage").code == 0


def test_descent_that_takes_shorter_steps(at, monkeypatch):
    """It has not come as far as its filter says."""
    step = GD.step

    def shorter(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.0099
        return step(self, closure)

    monkeypatch.setattr(GD, "step", shorter)
    claims = "early_stopping_is_shrinkage"
    assert at.study(claims, "spectral_filter", *PAIR) == "does not hold"


def test_a_penalty_without_its_half(at, monkeypatch):
    """Ridge shrinks by twice as much then, and descent is far from it."""
    penalty = L2.penalty
    monkeypatch.setattr(L2, "penalty", lambda self, *given: 2 * penalty(self, *given))
    claims = "early_stopping_is_shrinkage"
    assert at.study(claims, "little_more_than_ridge", *PAIR) == "does not hold"


def test_strengths_are_those_of_the_times(study_grids):
    """They are worked out by hand in the study: 1/(ηt), with η = 0.01."""
    descent, ridge = study_grids("early_stopping_is_shrinkage")
    times = [0.01 * float(steps) for steps in descent["trainer.max_epochs"].split(",")]
    strengths = [float(value) for value in ridge["regularizer.l2.coefficient"].split(",")]
    assert all(math.isclose(t * s, 1) for t, s in zip(times, strengths, strict=True))
