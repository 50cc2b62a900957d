"""Edits of the training batch: noise on the inputs, mixup, CutMix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Regularizer

SMALL = 0.01
"""Where α begins at which gammas need no logarithms: both underflow in one draw of a million."""


class InputNoise(Regularizer):
    """Trains on ``x + σε`` with ``ε ~ N(0, I)``, drawn anew for every batch.

    For the squared error and small σ this acts like the penalty ``σ²/2 · mean ‖∇ₓ f‖²`` on half
    the squared error.

    Source: Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural
    Computation 7 (1995).

    Args:
        std: σ, in the units of the (standardized) inputs.
    """

    stacks = ("std",)
    requires = ("real inputs",)

    def __init__(self, std: float) -> None:
        self.std = check_float("regularizer.input_noise.std", std)

    def edit_batch(self, batch: Batch) -> Batch:
        """Return the batch with noise added to its inputs."""
        x = torch.add(batch.x, torch.randn_like(batch.x), alpha=self.std)
        return replace(batch, x=x)


class SampleMixing(Regularizer):
    """Mixes each sample with another of its batch, in the proportion ``share ~ Beta(α, α)``.

    The proportion is one a batch.

    Args:
        alpha: α > 0.
    """

    stacks = ("alpha",)
    key = "regularizer"
    requires = ("real inputs",)

    def __init__(self, alpha: float) -> None:
        self.alpha = check_float(f"{self.key}.alpha", alpha, above=True)
        self._concentration = torch.tensor([alpha, alpha], dtype=torch.float64)

    def draw_share(self) -> float:
        """Draw a proportion from Beta(α, α)."""
        # Gammas of small α underflow, and torch takes two that are both 0 for equal: ½ in 25 % of
        # the draws at α = 1e-3, in 99 % at 1e-5.
        if self.alpha < SMALL:
            return self._draw_by_logs()
        # what `torch.distributions.Beta` draws with, at a quarter of its cost; on the CPU, so that
        # a GPU need not be waited for
        return float(torch._sample_dirichlet(self._concentration)[0])

    def _draw_by_logs(self) -> float:
        """Draw from Beta(α, α) with logarithms of gammas: ln Gα = ln Gα₊₁ + (ln U)/α."""
        gammas = torch._standard_gamma(self._concentration + 1)
        # 1 − U, as U may be 0 and its logarithm infinite
        uniforms = 1 - torch.rand(2, dtype=torch.float64)
        first, second = (gammas.log() + uniforms.log() / self.alpha).unbind()
        return float(torch.sigmoid(first - second))

    def draw_partners(self, batch: Batch) -> Tensor:
        """Draw a random order [n] of the batch's samples.

        Raises:
            ConfigError: the batch is mixed already.
        """
        if batch.other is not None:
            raise ConfigError(
                "mixup and cutmix both mix samples, and a batch can be mixed only once: "
                "leave one of them out of `regularizer`"
            )
        return torch.randperm(len(batch), device=batch.x.device)


class Mixup(SampleMixing):
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
        j = self.draw_partners(batch)
        mu = self.draw_share()
        share = torch.full((), mu, dtype=batch.x.dtype, device=batch.x.device)
        return Batch(batch.x[j].lerp(batch.x, mu), batch.y, batch.y[j], share)


class CutMix(SampleMixing):
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
        # partners first: the order of the draws is part of what a seed stands for
        j = self.draw_partners(batch)
        box = draw_box(size, 1 - self.draw_share())
        x = batch.x.clone()
        index = (slice(None), slice(None), *box)
        x[index] = batch.x[j][index]
        share = torch.full((), 1 - box_share(box, size), dtype=x.dtype, device=x.device)
        return Batch(x, batch.y, batch.y[j], share)


def draw_box(size: Sequence[int], share: float) -> list[slice]:
    """Draw a box that covers a share of an image where it does not hang over the edge.

    Args:
        size: the image's sides, or a signal's length.
        share: of the image's area, in [0, 1].

    Returns:
        A slice along each side.
    """
    side = share ** (1 / len(size))
    centres = torch.rand(len(size)).tolist()
    box = []
    for u, n in zip(centres, size, strict=True):
        length = round(side * n)
        start = int(u * n) - length // 2
        box.append(slice(max(start, 0), min(start + length, n)))
    return box


def box_share(box: Sequence[slice], size: Sequence[int]) -> float:
    """Compute the share of an image that a box holds.

    Args:
        box: a slice along each side.
        size: the image's sides.

    Returns:
        The share in [0, 1].

    >>> box_share([slice(0, 2), slice(1, 3)], [4, 4])
    0.25
    """
    share = 1.0
    for side, n in zip(box, size, strict=True):
        share *= (side.stop - side.start) / n
    return share
