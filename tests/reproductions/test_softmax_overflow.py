"""The claims on softmax in finite precision, and what turns them."""

from __future__ import annotations

from truerisk.model import convex

FLOAT32 = (
    "hydra.sweeper.grids="
    "[{model.format:float32,model.form:'naive,shifted,logits',model.target:'0,1'}]"
)


def test_all_claims_hold(at):
    assert at.quick("softmax_overflow").code == 0


def test_a_shift_that_does_not_shift(at, monkeypatch):
    monkeypatch.setattr(convex, "shift_logits", lambda z: z)
    assert at.study("softmax_overflow", "shifted_is_exact", FLOAT32) == "does not hold"
    assert at.study("softmax_overflow", "logits_stay_finite", FLOAT32) == "does not hold"
