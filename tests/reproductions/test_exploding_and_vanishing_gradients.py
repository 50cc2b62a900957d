"""The claims on gradients through time, and what turns them."""

from __future__ import annotations

import torch
from torch.nn.utils import clip_grad_value_

from truerisk.engine.step import Step

LINEAR = "hydra.sweeper.grids=[{initializer.weight.std:1e-9,initializer.recurrent.gain:1.1}]"
CLIPPED = (
    "hydra.sweeper.grids=[{diagnostics:'[]',optimizer.lr:'0.0,1.0'},"
    "{diagnostics:'[]',optimizer.lr:1.0,step.clip.norm:'1e-3,1e3'}]"
)
NAME = "exploding_and_vanishing_gradients"


def test_all_claims_hold(at):
    assert at.quick(NAME).code == 0


def test_an_initializer_with_another_gain(at, monkeypatch):
    orthogonal = torch.nn.init.orthogonal_
    monkeypatch.setattr(
        torch.nn.init, "orthogonal_", lambda tensor, gain=1: orthogonal(tensor, gain=gain * 1.01)
    )
    assert at.study(NAME, "rate_is_the_radius", LINEAR) == "does not hold"


def test_a_clip_by_value(at, monkeypatch):
    def clip(self, norm):
        if self.extras.clip_norm is not None:
            clip_grad_value_(self.params, self.extras.clip_norm)

    monkeypatch.setattr(Step, "clip", clip)
    # a stack has a clip of its own
    verdict = at.study(NAME, "direction_is_kept", CLIPPED, "hydra/launcher=basic")
    assert verdict == "does not hold"


def test_sigmoids_that_forget_less(at, monkeypatch):
    """tanh(x/4) is as steep at 0 as a sigmoid, and steeper where the states come to rest."""
    monkeypatch.setattr(torch, "sigmoid", lambda x: torch.tanh(x / 4))
    grid = LINEAR.replace("}]", ",model.activation:sigmoid,optimizer.lr:0.0}]")
    assert at.study(NAME, "rate_of_sigmoids", grid) == "does not hold"
