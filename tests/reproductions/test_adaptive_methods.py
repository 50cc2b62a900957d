"""The claims on adaptive methods, and what turns them."""

from __future__ import annotations

import torch

from truerisk.reproductions.adaptive_methods import SMALL
from truerisk.verdicts import write_grids

REDDI = (
    "hydra.sweeper.grids=[{model:polynomial,model.degree:0,loss:hinge,loss.weight:'[3,1]',"
    "data.source.prior:'[1,2]',data.num_train:400,data.batch_size:1,optimizer:adam,"
    "optimizer.betas:'[0.0,0.1]',optimizer.amsgrad:true,optimizer.lr:0.5,"
    "scheduler:inverse_sqrt,scheduler.warmup:0,scheduler.timescale:1,trainer.max_epochs:2,"
    "seed:'range(3)'}]"
)
AXES = write_grids(
    {"optimizer": "gd", "optimizer.lr": 1.5, **SMALL, "model.rotation": None},
    {"optimizer": "adagrad", "optimizer.lr": 1, **SMALL, "model.rotation": None},
)


def test_no_claim_fails(at):
    assert at.quick("adaptive_methods").code == 0


def test_a_maximum_that_is_forgotten(at, monkeypatch):
    """Without its memory of the largest mean square, AMSGrad is Adam, and goes where Adam goes."""
    assert at.study("adaptive_methods", "amsgrad_does_not", REDDI) == "holds"
    made = torch.optim.Adam.__init__
    monkeypatch.setattr(
        torch.optim.Adam, "__init__", lambda self, *a, **k: made(self, *a, **k | {"amsgrad": False})
    )
    broken = at.study("adaptive_methods", "amsgrad_does_not", REDDI, "study=broken")
    assert broken == "does not hold"


def test_one_step_length_for_all(at, monkeypatch):
    """AdaGrad by the norm of the gradient has none of its gain along the axes."""
    assert at.study("adaptive_methods", "adagrad_gains", AXES) == "holds"

    @torch.no_grad()
    def by_norm(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                total = self.state[w]["sum"]
                total += w.grad.square().mean()
                w -= group["lr"] * w.grad / total.sqrt()

    monkeypatch.setattr(torch.optim.Adagrad, "step", by_norm)
    broken = at.study("adaptive_methods", "adagrad_gains", AXES, "study=broken")
    assert broken == "does not hold"


RARE = {"data": "rare_classes", "data.source.groups": 5, "data.val": 2, "data.stratify": False}
RARE |= {"trainer.max_epochs": 100, "risk.every": 4, "seed": "range(2)"}
ADAM = {"data.batch_size": "full", "optimizer": "adam", **RARE}


def test_adam_that_divides_by_one(at):
    """Steps in proportion to gradients leave the rare classes where they are, as descent does."""
    tried = [{"optimizer.lr": 0.01}, {"optimizer.lr": 0.1, "optimizer.eps": 1.0}]
    verdicts = [
        at.study(
            "adaptive_methods", "adam_learns_the_rare", write_grids({**ADAM, **t}), f"study={k}"
        )
        for k, t in enumerate(tried)
    ]
    assert verdicts == ["holds", "does not hold"]
