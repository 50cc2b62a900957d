"""The claims on the edge of stability, and what turns them."""

from __future__ import annotations

import json

from truerisk.optimizer import GD


def test_sharpness_hovers_there(at):
    """Three training sets decide most claims, and turn none."""
    done = at.quick("edge_of_stability")
    claims = json.loads((done.folder / "verdict.json").read_text())["claims"]
    verdicts = {name: claim["verdict"] for name, claim in claims.items()}
    assert done.code == 0 and "does not hold" not in verdicts.values(), claims
    assert verdicts["rises_until_there"] == verdicts["not_when_small"] == "holds", claims


ONE = (
    "hydra.sweeper.grids=[{optimizer.lr:0.1,trainer.max_epochs:1500,seed:1},"
    "{optimizer.lr:0.002,trainer.max_epochs:1,seed:0}]"
)


def test_steps_shorter_than_they_say(at, monkeypatch):
    """At 2/η of the step length that is said, nothing is to be seen."""
    assert at.study("edge_of_stability", "gets_there", ONE) == "holds"
    step = GD.step

    def short(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                w.grad *= 0.05
        return step(self, closure)

    monkeypatch.setattr(GD, "step", short)
    assert at.study("edge_of_stability", "gets_there", ONE, "study=broken") == "does not hold"
