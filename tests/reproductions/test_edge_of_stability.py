"""The claims on the edge of stability, and what turns them."""

from __future__ import annotations

import json

from truerisk.optimizer import GD


def test_sharpness_is_there_at_most_looks_not_at_all(at):
    """On its way in it swings by more than 8 %; three training sets leave some claims open."""
    done = at.quick("edge_of_stability")
    claims = json.loads((done.folder / "verdict.json").read_text())["claims"]
    verdicts = {name: claim["verdict"] for name, claim in claims.items()}
    assert verdicts.pop("stays") != "holds"
    assert "does not hold" not in verdicts.values(), claims
    assert verdicts["arrives"] == verdicts["mostly_stays"] == "holds", claims


ONE = (
    "hydra.sweeper.grids=[{optimizer.lr:0.1,trainer.max_epochs:600,seed:0},"
    "{optimizer.lr:0.002,trainer.max_epochs:1,seed:0}]"
)


def test_steps_shorter_than_they_say(at, monkeypatch):
    """At 2/η of the step length that is said, nothing is to be seen."""
    assert at.study("edge_of_stability", "arrives", ONE) == "holds"
    step = GD.step

    def short(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                w.grad *= 0.05
        return step(self, closure)

    monkeypatch.setattr(GD, "step", short)
    assert at.study("edge_of_stability", "arrives", ONE, "study=broken") == "does not hold"
