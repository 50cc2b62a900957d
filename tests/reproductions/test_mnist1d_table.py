"""The claims on MNIST-1D, and what turns them."""

from __future__ import annotations

from truerisk.loss import Surrogate

LINEAR = "trainer.max_steps=300"


def test_no_claim_fails(at):
    """The quick study has the logistic regression alone; the rest is inconclusive."""
    done = at.quick("mnist1d_table")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_errors_counted_wrongly(at, monkeypatch):
    errors = Surrogate.compute_errors
    monkeypatch.setattr(Surrogate, "compute_errors", lambda self, out, y: errors(self, -out, y))
    assert at.study("mnist1d_table", "logistic_regression", LINEAR) == "does not hold"
