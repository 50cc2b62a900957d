"""CutMix."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.regularizer.mixing import Mixing


class CutMix(Mixing):
    """CutMix: pastes a box of sample j into sample i; the loss is
    ``μ l(·, yᵢ) + (1 − μ) l(·, yⱼ)``, where μ is the share of i that is left.

    A box of area ``1 − m``, ``m ~ Beta(α, α)``, is placed with its centre anywhere in the image,
    or in the signal, and what hangs over is cut off; μ is counted afterwards. One box a batch.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features", ICCV 2019, §3.1.

    Args:
        alpha: α > 0; 1 in the paper.

    Raises:
        ConfigError: at the first batch, if samples are vectors without a spatial order.
    """

    key = "regularizer.cutmix"

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the batch with a box of its samples exchanged."""
        size = batch.x.shape[2:]
        if not size:
            raise ConfigError(
                "regularizer=cutmix needs signals (channels, length) or images (channels, height, "
                f"width), but a sample has shape {tuple(batch.x.shape[1:])}: take mixup instead"
            )
        j, inside = self.partners(batch), box(size, 1 - self.draw())
        x = batch.x.clone()
        index = (slice(None), slice(None), *inside)
        x[index] = batch.x[j][index]
        share = torch.full((), 1 - area(inside, size), dtype=x.dtype, device=x.device)
        return Batch(x, batch.y, batch.y[j], share)


def box(size: Sequence[int], share: float) -> list[slice]:
    """A random box that covers ``share`` of ``size`` where it does not hang over the edge."""
    side = share ** (1 / len(size))
    centres = torch.rand(len(size)).tolist()
    return [_cut(int(u * n), round(side * n), n) for u, n in zip(centres, size, strict=True)]


def _cut(centre: int, length: int, n: int) -> slice:
    start = centre - length // 2
    return slice(max(start, 0), min(start + length, n))


def area(inside: Sequence[slice], size: Sequence[int]) -> float:
    """The share of ``size`` that a box holds.

    >>> area([slice(0, 2), slice(1, 3)], [4, 4])
    0.25
    """
    total = 1.0
    for side, n in zip(inside, size, strict=True):
        total *= (side.stop - side.start) / n
    return total
