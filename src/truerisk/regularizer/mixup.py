"""Mixup."""

from __future__ import annotations

import torch

from truerisk.core.batch import Batch
from truerisk.regularizer.mixing import Mixing


class Mixup(Mixing):
    """Mixup: trains on ``μxᵢ + (1 − μ)xⱼ`` with the loss ``μ l(·, yᵢ) + (1 − μ) l(·, yⱼ)``.

    ``μ ~ Beta(α, α)``, one a batch, and j is a random partner in the batch. For cross-entropy and
    the squared error this has the gradient of the loss at the mixed target, as in the paper.

    Source: Zhang, Cisse, Dauphin & Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR
    2018, §2.

    Args:
        alpha: α > 0; small values leave most batches almost unmixed, 1 mixes uniformly.
    """

    key = "regularizer.mixup"

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the mixed batch."""
        j, mu = self.partners(batch), self.draw()
        share = torch.full((), mu, dtype=batch.x.dtype, device=batch.x.device)
        return Batch(batch.x[j].lerp(batch.x, mu), batch.y, batch.y[j], share)
