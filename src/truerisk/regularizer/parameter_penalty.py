"""What penalties on the parameters alone have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from truerisk.core.checks import check_float
from truerisk.regularizer.base import Forward, Regularizer
from truerisk.regularizer.groups import Groups, Rules


class ParameterPenalty(Regularizer):
    """λR(w), summed over the groups that ``rules`` make of the parameters.

    A rule is a mapping with any of ``name`` (a regular expression), ``min_ndim`` and ``max_ndim``,
    and the numbers to use for the parameters it matches; the first match wins, and a rule that
    matches nothing is an error unless it says ``optional: true``. A subclass names its numbers in
    ``numbers``, has an attribute for each, and defines ``of``.
    """

    key = "regularizer"
    numbers: tuple[str, ...] = ("coefficient",)
    of: Callable[..., Tensor]
    """``of(weights, **numbers)``: λR of some parameters, a scalar."""

    def __init__(self, coefficient: float, rules: Rules | None = ()) -> None:
        self.coefficient = check_float(f"{self.key}.coefficient", coefficient)
        self.groups = Groups(self.key, self.numbers, rules)
        for rule in self.groups.rules:
            if rule.get("coefficient") is not None:
                check_float(f"{self.key}.rules: coefficient", rule["coefficient"])

    def penalty(self, forward: Forward) -> Tensor:
        """λR of all parameters, each with its group's numbers."""
        params, total = forward.params, None
        for own, names in self.groups(params):
            numbers = {name: own.get(name, getattr(self, name)) for name in self.numbers}
            term = self.of([params[name] for name in names], **numbers)
            total = term if total is None else total + term
        return forward.outputs.new_zeros(()) if total is None else total


def flat(weights: Sequence[Tensor]) -> Tensor:
    """All entries in one vector: two kernels on it beat two on each of many small parameters."""
    return torch.cat([w.reshape(-1) for w in weights])
