"""What our short forms become before Hydra reads them."""

from __future__ import annotations

from truerisk.config.compose import expand_resume, expand_short_forms, quote_override


def test_seed_is_short_for_its_base_alone():
    assert expand_short_forms(["seed=1,2", "seed.init=3", "data.seed=1"])[0] == "seed.base=1,2"
    assert expand_short_forms(["seed.init=3", "data.seed=1"]) == ["seed.init=3", "data.seed=1"]


def test_resuming_leaves_hydras_overrides():
    assert expand_resume(["resume=null", "a=1"]) == ["resume=null", "a=1"]
    kept = ["hydra.verbose=true", "resume='/'", "hydra.run.dir='/'"]
    assert expand_resume(["resume='/'", "hydra.verbose=true"]) == kept
    assert quote_override("a") == "'a'"
