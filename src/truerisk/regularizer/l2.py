"""The L2 penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.regularizer.parameter_penalty import ParameterPenalty, flat


class L2(ParameterPenalty):
    """L2 penalty: ``λR(w) = ½ λ‖w‖²``, with gradient ``λw``.

    Three things go by the name of L2, and only two of them are ever the same:

    * the L2 *penalty* (this): a term of the objective J, seen in ``objective`` and
      ``penalty/l2``, differentiated with the loss and clipped with its gradient;
    * *coupled* weight decay (``weight_decay`` of `torch.optim.SGD` or `Adam`): λw added to the
      gradient inside the optimizer, after clipping. Without clipping its steps are those of the
      penalty with the same λ, but J does not show it;
    * *decoupled* weight decay (`AdamW`): w shrinks by lr·λ·w beside the step. For SGD it equals
      coupled decay; for Adam it does not, because Adam rescales what is in the gradient.

    Source: Hoerl & Kennard, "Ridge Regression", Technometrics 12 (1970); on decay: Loshchilov &
    Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, §2.

    Args:
        coefficient: λ.
        rules: ordered parameter rules that set ``coefficient``; see ``ParameterPenalty``.

    >>> L2(0.1).of([torch.tensor([3.0, 4.0])], coefficient=0.1)
    tensor(1.2500)
    """

    key = "regularizer.l2"

    def of(self, weights: Sequence[Tensor], *, coefficient: float) -> Tensor:
        """½λ‖w‖²."""
        w = flat(weights)
        return (0.5 * coefficient) * torch.dot(w, w)
