"""The unit everything passes around: a batch of samples."""

from __future__ import annotations

from dataclasses import dataclass

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
