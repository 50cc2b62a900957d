"""The claims on step length and batch size, and what turns them."""

from __future__ import annotations

from truerisk.data.plan import BatchPlan
from truerisk.verdicts import write_grids

PART = write_grids(
    {
        **{"data.batch_size": [2, 32], "trainer.max_steps": 20, "trainer.precision": "64-true"},
        **{"optimizer.lr": [0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024]},
        **{"data.source.num_samples": 3048, "data.source.dimension": 31, "data.source.noise": 0.0},
    }
)


def test_no_claim_fails(at):
    """The quick study has SGD on least squares without noise, and two seeds tell little."""
    done = at.quick("linear_scaling_rule")
    assert done.code == 0
    assert 'class="inconclusive"' in done.page


def test_batches_that_have_every_sample_twice(at, monkeypatch):
    """Their noise is that of batches half as large, and so is the largest stable step length."""
    order = BatchPlan.order

    def twice(self, epoch):
        return order(self, epoch)[: self.n // 2].repeat_interleave(2)

    monkeypatch.setattr(BatchPlan, "order", twice)
    assert at.study("linear_scaling_rule", "largest_stable", PART) == "does not hold"
