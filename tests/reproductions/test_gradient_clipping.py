"""The claims on clipping, and what turns them."""

from __future__ import annotations

from torch.nn.utils import clip_grad_value_

from truerisk.engine.step import Step
from truerisk.verdicts import write_grids

ONE_STEP = {"trainer.max_epochs": -1, "trainer.max_steps": 1, "trainer.precision": "64-true"}
PART = (
    "seed=0",
    write_grids(
        {"optimizer.lr": 0.1, "step.clip.norm": [None, 1e-3], **ONE_STEP},
        {"optimizer.lr": 0.0, **ONE_STEP},
    ),
)


def test_no_claim_fails(at):
    """The quick study has what clipping does to a gradient."""
    done = at.quick("gradient_clipping")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_entries_cut_one_by_one(at, monkeypatch):
    """The direction is another then."""
    monkeypatch.setattr(Step, "clip", lambda self, norm: clip_grad_value_(self.params, 1e-5))
    assert at.study("gradient_clipping", "direction_is_kept", *PART) == "does not hold"
