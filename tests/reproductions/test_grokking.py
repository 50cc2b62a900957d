"""The claims on grokking, and what turns them."""

from __future__ import annotations

from truerisk.data import modular

SMALL = ("seed=0", "trainer.max_epochs=200")


def test_no_claim_fails(at):
    """The quick study has what training is like without weight decay."""
    done = at.quick("grokking")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_an_operation_that_needs_no_addition(at, monkeypatch):
    """A class that is one of the residues is learned without weight decay, too."""
    monkeypatch.setitem(modular.OPERATIONS, "add", lambda a, b, p: a)
    assert at.study("grokking", "not_without", *SMALL) == "does not hold"
