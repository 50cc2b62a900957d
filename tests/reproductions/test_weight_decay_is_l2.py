"""The claims on weight decay, and what turns them."""

from __future__ import annotations

import math

import pytorch_optimizer
import torch

STEPS = "data.batch_size:full,trainer.precision:'64-true',trainer.max_epochs:3"
RATES = f"optimizer.lr:0.1,optimizer.weight_decay:0.01,{STEPS}"
SGD = (
    f"hydra.sweeper.grids=[{{optimizer:sgd,{RATES}}},{{optimizer:custom,"
    "optimizer._target_:pytorch_optimizer.SGDW,"
    f"+optimizer.lr:0.1,+optimizer.weight_decay:0.01,{STEPS}}}]"
)
ADAM = f"hydra.sweeper.grids=[{{optimizer:'adam,adamw',{RATES}}}]"


def test_no_claim_fails(at):
    """Two seeds decide nothing about the learning rate; the other claims hold."""
    done = at.quick("weight_decay_is_l2")
    assert done.code == 0
    assert done.page.count("holds") >= 2


def test_a_decay_that_is_not_scaled_by_the_learning_rate(at, monkeypatch):
    class Unscaled(pytorch_optimizer.SGDW):
        def apply_weight_decay_foreach(self, **options):
            super().apply_weight_decay_foreach(**options | {"fixed_decay": True})

        def apply_weight_decay(self, *args, **options):
            super().apply_weight_decay(*args, **options | {"fixed_decay": True})

    monkeypatch.setattr(pytorch_optimizer, "SGDW", Unscaled)
    assert at.study("weight_decay_is_l2", "same_for_sgd", SGD) == "does not hold"


def test_a_decay_that_is_not_decoupled(at, monkeypatch):
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.Adam)
    assert at.study("weight_decay_is_l2", "different_for_adam", ADAM) == "does not hold"


def test_the_maps_have_the_same_decays(study_grids):
    """AdamW's are λ/lr, worked out by hand in the study."""
    coupled, *decoupled = [grid for grid in study_grids("weight_decay_is_l2") if "seed" in grid]
    decays = [float(value) for value in coupled["optimizer.weight_decay"].split(",")]
    rates = [float(value) for value in coupled["optimizer.lr"].split(",")]
    assert [grid["optimizer.lr"] for grid in decoupled] == rates
    for grid, lr in zip(decoupled, rates, strict=True):
        shares = [float(value) for value in grid["optimizer.weight_decay"].split(",")]
        assert all(
            math.isclose(lr * share, decay) for share, decay in zip(shares, decays, strict=True)
        )
