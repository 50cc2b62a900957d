"""The claims on weight decay, and what turns them."""

from __future__ import annotations

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
