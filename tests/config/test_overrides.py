"""What our short forms become before Hydra reads them."""

from __future__ import annotations

from truerisk.config.overrides import normalize, quoted, resuming


def test_seed_is_short_for_its_base_alone():
    assert normalize(["seed=1,2", "seed.init=3", "data.seed=1"])[0] == "seed.base=1,2"
    assert normalize(["seed.init=3", "data.seed=1"]) == ["seed.init=3", "data.seed=1"]


def test_resuming_leaves_hydras_overrides():
    assert resuming(["resume=null", "a=1"]) == ["resume=null", "a=1"]
    kept = ["hydra.verbose=true", "resume='/'", "hydra.run.dir='/'"]
    assert resuming(["resume='/'", "hydra.verbose=true"]) == kept
    assert quoted("a") == "'a'"
