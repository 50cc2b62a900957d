"""The claims on the stability of SGD, and what turns them."""

from __future__ import annotations

import torch

from truerisk.reproductions.sgd_stability import expect_logistic
from truerisk.task.classification import Classification
from truerisk.verdicts import write_grids

SIZES = write_grids(
    *(
        {
            **{"model.bias": False, "data.num_train": n, "data.label_noise": [0.0, 1 / n]},
            "trainer.max_epochs": 1600 // n,
        }
        for n in (50, 200)
    )
)


def test_no_claim_fails(at):
    """Three pairs bound the distance; the exponents have wide intervals."""
    done = at.quick("sgd_stability")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_twins_that_differ_in_a_fifth_of_their_samples(at, monkeypatch):
    """As many differ whatever N, and they part by more than one sample makes them."""
    add = Classification.add_label_noise
    monkeypatch.setattr(
        Classification,
        "add_label_noise",
        lambda self, y, share, *given: add(self, y, 0.2 * (share > 0), *given),
    )
    for claim in ("falls_with_samples", "within_bound"):
        assert at.study("sgd_stability", claim, SIZES) == "does not hold", claim


def test_the_logistic_risk_is_that_of_samples():
    margins = 0.5 + 2 * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).double()
    known = float(torch.nn.functional.softplus(-margins).mean())
    assert abs(expect_logistic(0.5, 2.0) - known) < 0.005
