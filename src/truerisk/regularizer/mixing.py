"""What mixup and cutmix have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Regularizer


class Mixing(Regularizer):
    """Mixes each sample with another of its batch, in the proportion ``share ~ Beta(α, α)``.

    The proportion is one a batch. It is drawn on the CPU, so that a GPU need not wait for it.
    """

    key = "regularizer"

    def __init__(self, alpha: float) -> None:
        self.alpha = check_float(f"{self.key}.alpha", alpha, above=True)
        self._concentration = torch.tensor([alpha, alpha], dtype=torch.float64)

    def draw(self) -> float:
        """A proportion. The draw behind `torch.distributions.Beta`, at a quarter of its cost."""
        return float(torch._sample_dirichlet(self._concentration)[0])

    def partners(self, batch: Batch) -> Tensor:
        """A random order of the batch's samples."""
        if batch.other is not None:
            raise ConfigError(
                "mixup and cutmix both mix samples, and a batch can be mixed only once: "
                "leave one of them out of `regularizer`"
            )
        return torch.randperm(len(batch), device=batch.x.device)
