"""The units everything passes around: a batch of samples, and a forward pass over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs ``x`` of shape [n, *input_shape] and targets ``y`` of shape [n] or [n, outputs].

    A batch edited by mixup or cutmix carries a second target: its loss is
    ``share · l(out, y) + (1 − share) · l(out, other)``, with ``share`` of shape [n] or []. Where
    samples count unlike, their losses are multiplied by ``weight``, [n].
    """

    x: Tensor
    y: Tensor
    other: Tensor | None = None
    share: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


class Forward(NamedTuple):
    """One evaluation of the model, as penalties see it.

    Attributes:
        params: the trainable parameters by name.
        batch: the n samples.
        outputs: the model's outputs on them, [n, outputs].
        losses_at: gives the losses [n] of other inputs x [n, *input_shape], under the same
            parameters and targets.
    """

    params: Mapping[str, Tensor]
    batch: Batch
    outputs: Tensor
    losses_at: Callable[[Tensor], Tensor]
