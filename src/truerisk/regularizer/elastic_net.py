"""The elastic-net penalty."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.regularizer.parameter_penalty import ParameterPenalty, Rules, flat


class ElasticNet(ParameterPenalty):
    """Elastic net: ``λR(w) = λ (ρ‖w‖₁ + ½ (1 − ρ)‖w‖²)`` with λ ``coefficient``, ρ ``l1_ratio``.

    This is scikit-learn's parametrization (there, λ is called ``alpha``). Its `ElasticNet` adds it
    to *half* the mean squared error, so on top of this project's ``mse`` the same solution needs
    twice its ``alpha``.

    Source: Zou & Hastie, "Regularization and Variable Selection via the Elastic Net", JRSS-B 67
    (2005).

    Args:
        coefficient: λ.
        l1_ratio: ρ in [0, 1]; 1 is the L1 penalty, 0 the L2 penalty.
        rules: ordered parameter rules that set ``coefficient`` or ``l1_ratio``.

    >>> ElasticNet(1.0, 0.5).of([torch.tensor([3.0, -4.0])], coefficient=1.0, l1_ratio=0.5)
    tensor(9.7500)
    """

    key = "regularizer.elastic_net"
    numbers = ("coefficient", "l1_ratio")

    def __init__(self, coefficient: float, l1_ratio: float = 0.5, rules: Rules | None = ()) -> None:
        super().__init__(coefficient, rules)
        self.l1_ratio = check_float(f"{self.key}.l1_ratio", l1_ratio, 0, 1)
        for rule in self.groups.rules:
            if "l1_ratio" in rule:
                check_float(f"{self.key}.rules: l1_ratio", rule["l1_ratio"], 0, 1)

    def of(self, weights: Sequence[Tensor], *, coefficient: float, l1_ratio: float) -> Tensor:
        """λ(ρ‖w‖₁ + ½(1 − ρ)‖w‖²)."""
        w = flat(weights)
        return coefficient * (l1_ratio * w.abs().sum() + 0.5 * (1 - l1_ratio) * torch.dot(w, w))
