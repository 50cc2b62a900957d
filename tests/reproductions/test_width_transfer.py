"""The claims on widths, and what turns them."""

from __future__ import annotations

import truerisk.assemble


def test_no_claim_fails(at):
    """The quick study looks at the change of outputs alone."""
    done = at.quick("width_transfer")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_rates_that_do_not_fall_with_the_width(at, monkeypatch):
    monkeypatch.setattr(truerisk.assemble, "scale_rates", lambda groups, *known: groups)
    assert at.study("width_transfer", "mup_after_2") == "does not hold"
