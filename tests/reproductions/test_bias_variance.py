"""The claims on bias and variance, and what turns them."""

from __future__ import annotations

from truerisk.engine.measure import RiskEstimator
from truerisk.optimizer import Newton

POLYNOMIALS = ("seed=range(12)", "hydra.sweeper.grids=[{model.degree:'1,3'}]")


def test_all_claims_hold(at):
    assert at.quick("bias_variance").code == 0


def test_a_true_risk_measured_on_the_training_set(at, monkeypatch):
    monkeypatch.setattr(
        RiskEstimator,
        "true_risk",
        lambda self, epoch: self.measure_split("train", None).name_risks("true", epoch),
    )
    assert at.study("bias_variance", "they_add_up", *POLYNOMIALS) == "does not hold"


def test_least_squares_that_stops_short(at, monkeypatch):
    """What is left of the start hides how well the degree suits."""
    direction = Newton._newton_direction
    monkeypatch.setattr(
        Newton, "_newton_direction", lambda self, oracle: 0.9 * direction(self, oracle)
    )
    assert at.study("bias_variance", "bias_side", *POLYNOMIALS) != "holds"
