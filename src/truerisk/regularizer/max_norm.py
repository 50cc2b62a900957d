"""The max-norm constraint."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.regularizer.base import Regularizer
from truerisk.regularizer.groups import Groups, Rules


class MaxNorm(Regularizer):
    """Max-norm constraint: after every step, ``‖w_u‖₂ ≤ c`` for each unit u.

    ``w_u`` is what feeds one unit: a row of a dense layer's weight, a filter of a convolution. One
    that is too long is scaled back to length c, the nearest feasible point; the others are not
    touched. Vectors and scalars, such as biases, are free.

    Source: Srebro, Rennie & Jaakkola, "Maximum-Margin Matrix Factorization", NeurIPS 2004; for
    networks Srivastava et al., "Dropout", JMLR 15 (2014), §5.1.

    Args:
        bound: c > 0.
        rules: ordered parameter rules that set ``bound``, null for none; see ``ParameterPenalty``.

    >>> import torch
    >>> w = torch.tensor([[3.0, 4.0], [0.6, 0.8]])
    >>> MaxNorm(2.5).project({"weight": w}); w
    tensor([[1.5000, 2.0000],
            [0.6000, 0.8000]])
    """

    def __init__(self, bound: float, rules: Rules | None = ()) -> None:
        self.bound = check_float("regularizer.max_norm.bound", bound, above=True)
        self.groups = Groups("regularizer.max_norm", ("bound",), rules)
        for rule in self.groups.rules:
            if rule.get("bound") is not None:
                check_float("regularizer.max_norm.rules: bound", rule["bound"], above=True)

    def project(self, params: Mapping[str, Tensor]) -> None:
        """Scale back the rows that are too long, in place."""
        for numbers, names in self.groups(params):
            bound = numbers.get("bound", self.bound)
            for name in names:
                w = params[name]
                if w.ndim > 1:
                    w.renorm_(2, 0, bound)
