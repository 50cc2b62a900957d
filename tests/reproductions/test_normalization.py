"""The claims on normalization, and what turns them."""

from __future__ import annotations

import json

from truerisk.data.encoder import Standardizer
from truerisk.reproductions.normalization import LINEAR, RATE
from truerisk.verdicts import write_grids

NAME = "normalization"


def test_least_squares_holds(at):
    """Networks are not in the quick study."""
    done = at.quick(NAME)
    claims = json.loads((done.folder / "verdict.json").read_text())["claims"]
    verdicts = [claim["verdict"] for claim in claims.values()]
    assert done.code == 0
    assert verdicts == ["holds"] * 3 + ["not run with --quick"] * 4, claims


def test_inputs_that_keep_their_means(at, monkeypatch):
    """Scales alone leave the means in the Hessian."""
    fit = Standardizer.fit.__func__

    def scale_only(cls, kind, chunks):
        whole = fit(cls, kind, chunks)
        whole.mean = whole.mean * 0
        return whole

    monkeypatch.setattr(Standardizer, "fit", classmethod(scale_only))
    grid = write_grids({**LINEAR, "data.standardize": "feature", RATE: 0.2})
    assert at.study(NAME, "condition_in_closed_form", grid) == "does not hold"
