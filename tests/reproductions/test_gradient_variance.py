"""The claims on the noise of the gradient, and what turns them."""

from __future__ import annotations

from truerisk.data.plan import BatchPlan

BATCHES = (
    "hydra.sweeper.grids=[{optimizer.lr:0.0,data.batch_size:full},"
    "{data.batch_size:full,diagnostics:'[gradient_noise]'},"
    "{data.batch_size:64,seed.order:'range(16)'}]"
)


def test_no_claim_fails(at):
    """Sixteen draws leave the finite population's factor open; the other claims hold."""
    assert at.quick("gradient_variance").code == 0


def test_batches_from_one_half_of_the_data(at, monkeypatch):
    order = BatchPlan.order

    def half(self, epoch):
        every = order(self, epoch)
        return every if self.full else every[every < self.n // 2].repeat(2)

    monkeypatch.setattr(BatchPlan, "order", half)
    assert at.study("gradient_variance", "unbiased", BATCHES) == "does not hold"
