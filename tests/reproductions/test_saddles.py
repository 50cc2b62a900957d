"""The claims on saddles, and what turns them."""

from __future__ import annotations

from truerisk.objective import convexity
from truerisk.optimizer import GD, PerturbedGD

DESCENT = "hydra.sweeper.grids=[{model.start:'[1.0,1e-1],[1.0,1e-4]',trainer.max_epochs:110}]"
POINTS = (
    "hydra.sweeper.grids=[{diagnostics:'[critical_point]',optimizer.lr:0.0,trainer.max_epochs:1,"
    "model:'saddle,paraboloid',model.start:'[0.0,0.0]'}]"
)

NOISE = (
    "hydra.sweeper.grids=[{model.start:'[1.0,0.0]',optimizer:custom,"
    "optimizer._target_:truerisk.optimizer.PerturbedGD,optimizer.lr:0.05,"
    "+optimizer.noise:0.001,trainer.max_epochs:120,seed:'range(4)'}]"
)
FIELDS = (
    "hydra.sweeper.grids=[{diagnostics:'[critical_point]',optimizer.lr:0.0,trainer.max_epochs:1,"
    "model:gaussian_field,model.level:true,model.dimension:10,model.field:'range(3)'}]"
)


def test_no_claim_fails(at):
    """Those on d = 2 and on noise are not run."""
    done = at.quick("saddles")
    assert done.code == 0
    assert "inconclusive" not in done.page.partition("<nav>")[2]


def test_descent_with_some_momentum(at, monkeypatch):
    """It leaves sooner than a step of its length lets it."""
    step = GD.step

    def longer(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.06
        return step(self, closure)

    monkeypatch.setattr(GD, "step", longer)
    assert at.study("saddles", "stalls_as_log", DESCENT) == "does not hold"


def test_a_saddle_that_is_taken_for_a_minimum(at, monkeypatch):
    monkeypatch.setattr(convexity, "_point_kind", lambda eigenvalues, zero: "minimum")
    assert at.study("saddles", "kinds_are_right", POINTS) == "does not hold"


def test_noise_that_is_larger_than_it_says(at, monkeypatch):
    """It drives the weights off the saddle too soon."""
    made = PerturbedGD.__init__

    def louder(self, params, noise, **numbers):
        made(self, params, noise=1000 * noise, **numbers)

    monkeypatch.setattr(PerturbedGD, "__init__", louder)
    assert at.study("saddles", "noise_leaves", NOISE) == "does not hold"


def test_a_field_of_minima(at, monkeypatch):
    monkeypatch.setattr(convexity, "_point_kind", lambda eigenvalues, zero: "minimum")
    assert at.study("saddles", "most_are_saddles", FIELDS) == "does not hold"


def test_minima_that_do_not_grow_rare(at, monkeypatch):
    monkeypatch.setattr(convexity, "_point_kind", lambda eigenvalues, zero: "minimum")
    fields = FIELDS.replace("dimension:10", "dimension:'2,3,4'").replace("range(3)", "range(4)")
    assert at.study("saddles", "minima_grow_rare", fields) == "does not hold"
