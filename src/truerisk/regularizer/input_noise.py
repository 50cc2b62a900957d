"""Gaussian noise on the inputs."""

from __future__ import annotations

import torch

from truerisk.core.batch import Batch
from truerisk.core.checks import check_float
from truerisk.regularizer.base import Regularizer


class InputNoise(Regularizer):
    """Trains on ``x + σε`` with ``ε ~ N(0, I)``, drawn anew for every batch.

    For the squared error and small σ this acts like the penalty ``σ²/2 · mean ‖∇ₓ f‖²`` on half
    the squared error.

    Source: Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural
    Computation 7 (1995).

    Args:
        std: σ, in the units of the (standardized) inputs.
    """

    def __init__(self, std: float) -> None:
        self.std = check_float("regularizer.input_noise.std", std)

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the batch with noise added to its inputs."""
        x = torch.add(batch.x, torch.randn_like(batch.x), alpha=self.std)
        return Batch(x, batch.y, batch.other, batch.share)
