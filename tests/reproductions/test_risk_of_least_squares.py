"""The claims on the risk of least squares, and what turns them."""

from __future__ import annotations

from truerisk.data import LinearPopulation
from truerisk.optimizer import Newton

SIZE = ("seed=range(12)", "hydra.sweeper.grids=[{data.num_train:60}]")


def test_no_claim_fails(at):
    """Six training sets decide about a few per cent only now and then."""
    assert at.quick("risk_of_least_squares").code == 0


def test_least_squares_that_stops_short(at, monkeypatch):
    """What is left of the start is no part of the law."""
    direction = Newton._newton_direction
    monkeypatch.setattr(
        Newton, "_newton_direction", lambda self, oracle: 0.98 * direction(self, oracle)
    )
    assert at.study("risk_of_least_squares", "training_risk", *SIZE) == "does not hold"


def test_a_true_risk_without_the_noise_that_was_fitted(at, monkeypatch):
    """It is the Bayes risk, whatever the weights."""
    monkeypatch.setattr(
        LinearPopulation, "expect_squared_error", lambda self, *_: self.noise_variance
    )
    assert at.study("risk_of_least_squares", "true_risk", *SIZE) == "does not hold"
