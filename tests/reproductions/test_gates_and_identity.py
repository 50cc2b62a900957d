"""The claims on gated and on identity cells, and what turns them."""

from __future__ import annotations

import json

from torch import nn

from truerisk.reproductions.gates_and_identity import IDENTITY, LOOK
from truerisk.verdicts import write_grids

NAME = "gates_and_identity"


def test_initial_weights_hold(at):
    """Training is not in the quick study."""
    done = at.quick(NAME)
    claims = json.loads((done.folder / "verdict.json").read_text())["claims"]
    assert done.code == 0
    verdicts = [claim["verdict"] for claim in claims.values()]
    assert verdicts == ["not run with --quick"] * 4 + ["holds"] * 2, claims


def test_an_identity_that_shrinks(at):
    grid = write_grids({**LOOK, **IDENTITY, "initializer.recurrent.scale": 0.99, "seed": 0})
    assert at.study(NAME, "identity_keeps_gradients", grid) == "does not hold"


def test_recurrent_weights_that_are_orthogonal(at, monkeypatch):
    uniform = nn.RNNBase.reset_parameters

    def reset_parameters(layer):
        uniform(layer)
        nn.init.orthogonal_(layer.weight_hh_l0)

    monkeypatch.setattr(nn.RNNBase, "reset_parameters", reset_parameters)
    assert at.study(NAME, "plain_loses_gradients", write_grids({**LOOK, "seed": 0})) == (
        "does not hold"
    )
