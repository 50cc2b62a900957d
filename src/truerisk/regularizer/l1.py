"""The L1 penalty."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from truerisk.regularizer.parameter_penalty import ParameterPenalty, flat


class L1(ParameterPenalty):
    """L1 penalty: ``λR(w) = λ‖w‖₁``, with (sub)gradient ``λ sign(w)``, 0 at 0.

    Plain gradient steps shrink weights towards 0 and then jitter around it: they end up small, of
    the order of lr·λ, but not exactly 0.

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", JRSS-B 58 (1996).

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> import torch
    >>> L1(0.5).of([torch.tensor([3.0, -4.0])], coefficient=0.5)
    tensor(3.5000)
    """

    key = "regularizer.l1"

    def of(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """λ‖w‖₁."""
        return coefficient * flat(weights).abs().sum()
