"""The claims on structural risk, and what turns them."""

from __future__ import annotations

from truerisk.regularizer import L2

PENALTIES = (
    'hydra.sweeper.grids=[{},{regularizer:"[l2]",regularizer.l2.coefficient:"1e-2,3e-2"}]',
    *("seed=range(2)", "trainer.max_epochs=10"),
)


def test_no_claim_fails(at):
    """The quick study has the L2 penalty and early stopping."""
    done = at.quick("structural_risk")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_a_penalty_that_has_no_gradient(at, monkeypatch):
    """Whatever λ, the train risk is the same."""
    penalty = L2.penalty
    monkeypatch.setattr(L2, "penalty", lambda self, *given: penalty(self, *given).detach())
    assert at.study("structural_risk", "l2_rises", *PENALTIES) == "does not hold"
