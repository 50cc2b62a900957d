"""The claims on the edge of stability, and what turns them."""

from __future__ import annotations

from truerisk.optimizer import GD


def test_all_claims_hold(at):
    assert at.quick("edge_of_stability").code == 0


def test_steps_half_as_long_as_they_say(at, monkeypatch):
    step = GD.step

    def half(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                w.grad *= 0.5
        return step(self, closure)

    monkeypatch.setattr(GD, "step", half)
    grid = (
        "hydra.sweeper.grids=[{optimizer.lr:0.1,trainer.max_epochs:1500},"
        "{optimizer.lr:0.002,trainer.max_epochs:1}]"
    )
    assert at.study("edge_of_stability", "stays", grid) == "does not hold"
