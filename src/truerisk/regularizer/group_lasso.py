"""The group-lasso penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.regularizer.parameter_penalty import ParameterPenalty


class GroupLasso(ParameterPenalty):
    """Group lasso: ``λR(w) = λ Σ_g √|g| ‖w_g‖₂``.

    A group is what feeds one unit: a row of a dense layer's weight, a filter of a convolution, so
    whole units fade out together. |g| is the number of its entries. Each entry of a vector is a
    group of its own. The subgradient taken at ``w_g = 0`` is 0.

    Source: Yuan & Lin, "Model Selection and Estimation in Regression with Grouped Variables",
    JRSS-B 68 (2006), eq. 2.1; for networks Wen et al., "Learning Structured Sparsity in Deep
    Neural Networks", NeurIPS 2016.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> w = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> GroupLasso(0.1).of([w], coefficient=0.1)
    tensor(1.)
    """

    key = "regularizer.group_lasso"

    def of(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """λ Σ √|g| ‖w_g‖₂."""
        return coefficient * torch.stack([_rows(w) for w in weights]).sum()


def _rows(w: Tensor) -> Tensor:
    """√|g| Σ‖row‖₂; a row of zeros, at the tip of its cone, has no slope and no curvature."""
    rows = w.reshape(w.shape[0] if w.ndim else 1, -1)
    zero = (rows == 0).all(1, keepdim=True)
    norms = torch.linalg.vector_norm(torch.where(zero, 1.0, rows), dim=1)
    return rows.shape[1] ** 0.5 * torch.where(zero.squeeze(1), 0.0, norms).sum()
