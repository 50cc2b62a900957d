"""The claims on momentum, and what turns them."""

from __future__ import annotations

import math

import torch

from truerisk.model import Lessard

NESTEROV = (
    "hydra.sweeper.grids=[{optimizer:nesterov,model.condition:16,optimizer.lr:1.0,"
    "optimizer.momentum:0.6}]"
)
CYCLE = (
    "hydra.sweeper.grids=[{optimizer:momentum,model:lessard,optimizer.lr:0.1111111111111111,"
    "optimizer.momentum:0.4444444444444444,trainer.max_epochs:40}]"
)


def test_all_claims_hold(at):
    assert at.quick("momentum_rates").code == 0


def test_nesterov_without_looking_ahead(at, monkeypatch):
    class Blind(torch.optim.SGD):
        def __init__(self, params, nesterov, **numbers):
            super().__init__(params, **numbers)

    monkeypatch.setattr(torch.optim, "SGD", Blind)
    assert at.study("momentum_rates", "nesterov_rate", NESTEROV) == "does not hold"


def test_a_parabola_without_its_bend(at, monkeypatch):
    """Heavy ball converges on it, as on every quadratic."""
    monkeypatch.setattr(Lessard, "value", lambda self, w: 12.5 * w.squeeze(-1).square())
    assert at.study("momentum_rates", "heavy_ball_cycles", CYCLE) == "does not hold"


def test_step_lengths_and_momentum_are_the_best(study_grids):
    """They are worked out by hand in the study, from the least and the largest curvature."""
    for grid in study_grids("momentum_rates"):
        least, largest = 1 / grid.get("model.condition", 1), 1
        if grid.get("model") == "lessard":
            least, largest = 1, 25
        low, high = math.sqrt(least), math.sqrt(largest)
        momentum, lr = (high - low) / (high + low), 1 / largest
        if grid["optimizer"] == "momentum":
            momentum, lr = momentum**2, 4 / (high + low) ** 2
        assert math.isclose(grid["optimizer.momentum"], momentum)
        assert math.isclose(grid["optimizer.lr"], lr)
