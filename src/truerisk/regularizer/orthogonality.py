"""The soft orthogonality penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.regularizer.parameter_penalty import ParameterPenalty


class Orthogonality(ParameterPenalty):
    """Soft orthogonality: ``λR(w) = λ Σ_W ‖W Wᵀ − I‖_F²``, with gradient ``4λ(W Wᵀ − I)W``.

    W is a dense layer's weight, or a convolution's kernel as a matrix [out, in · window]; vectors
    and scalars are left alone. Where W is taller than wide, ``Wᵀ W`` takes the place of ``W Wᵀ``:
    the smaller of the two can become I, the larger cannot.

    Source: Bansal, Chen & Wang, "Can We Gain More from Orthogonality Regularizations in Training
    Deep CNNs?", NeurIPS 2018, §3.1.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> Orthogonality(0.5).of([2 * torch.eye(3)], coefficient=0.5)
    tensor(13.5000)
    """

    key = "regularizer.orthogonality"

    def of(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """λ Σ ‖WWᵀ − I‖_F²."""
        matrices = [w.flatten(1) for w in weights if w.ndim > 1]
        # W Wᵀ − I in bfloat16 would be rounding error where it matters, near 0.
        with torch.autocast(weights[0].device.type, enabled=False):
            return coefficient * sum(map(_deviation, matrices), weights[0].new_zeros(()))


def _deviation(w: Tensor) -> Tensor:
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return (gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)).square().sum()
