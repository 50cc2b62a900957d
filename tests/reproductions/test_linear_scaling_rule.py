"""The claims on step length and batch size, and what turns them."""

from __future__ import annotations

import numpy as np

from truerisk.data.plan import BatchPlan
from truerisk.reproductions import linear_scaling_rule
from truerisk.verdicts import write_grids

PART = write_grids(
    {
        **{"data.batch_size": [2, 32], "trainer.max_steps": 20, "trainer.max_epochs": -1},
        **{"trainer.precision": "64-true"},
        **{"optimizer.lr": [0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024]},
        **{"data.source.num_samples": 3048, "data.source.dimension": 31, "data.source.noise": 0.0},
    }
)


def test_no_claim_fails(at):
    """The quick study has SGD on least squares without noise."""
    done = at.quick("linear_scaling_rule")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_batches_that_have_every_sample_twice(at, monkeypatch):
    """Their noise is that of batches half as large, and so is the largest stable step length."""
    order = BatchPlan.order

    def twice(self, epoch):
        return order(self, epoch)[: self.n // 2].repeat_interleave(2)

    monkeypatch.setattr(BatchPlan, "order", twice)
    assert at.study("linear_scaling_rule", "largest_stable", PART) == "does not hold"


def test_errors_of_both_signs_do_not_cancel(monkeypatch):
    """The farthest m of a seed is 1.45 times the theory's, or 0.66 times: 1.06 on average."""
    ratios = {1: [1.45, 1.2] * 20, 2: [0.72, 0.66] * 20}
    curves = {
        m: {
            seed: (np.log([ratio / (1 + 64 / m)]), np.array([-1.0]))
            for seed, ratio in enumerate(own)
        }
        for m, own in ratios.items()
    }
    monkeypatch.setattr(linear_scaling_rule, "risk_curves", lambda runs: curves)
    monkeypatch.setattr(linear_scaling_rule, "select_runs", lambda runs, task: runs)
    monkeypatch.setattr(linear_scaling_rule, "count_weights", lambda runs: 63)
    made = linear_scaling_rule.largest_stable
    finding = made.measure(None)
    assert abs(finding.value - 0.69) < 1e-12
    assert made.judge_finding(finding) == "does not hold"
