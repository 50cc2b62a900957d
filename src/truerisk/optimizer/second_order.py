"""What optimizers that use the curvature of J have in common."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from truerisk.core.checks import check_float
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError
from truerisk.optimizer.needs import Needs
from truerisk.optimizer.shards import refuse_shards

SHORTEST = 1e-10
"""A search along a line gives up at this share of the first step."""


class SecondOrder(Optimizer):
    """An optimizer whose ``step`` is given a `CurvatureOracle`; it takes one parameter group.

    The group's ``taken`` is the length of the last step, in units of the direction it went; zero
    where no decrease of J was found and the weights stayed.
    """

    needs = Needs(curvature=True, clip=False, scaler=False, groups=False)

    def __init__(self, params: Any, lr: float, **numbers: Any) -> None:
        check_float("optimizer.lr", lr, above=True)
        super().__init__(params, {"lr": lr, **numbers, "taken": 0.0})
        if len(self.param_groups) > 1:
            raise ConfigError("curvature joins all parameters: set param_groups=all")
        refuse_shards("curvature", self.param_groups[0]["params"])

    @property
    def group(self) -> dict[str, Any]:
        """The one parameter group."""
        return self.param_groups[0]

    @property
    def memory(self) -> dict[str, Any]:
        """What is remembered from step to step besides numbers: flat vectors, by name."""
        return self.state[self.group["params"][0]]

    @torch.no_grad()
    def step(self, problem: CurvatureOracle) -> Tensor:  # type: ignore[override]
        """Take one step; returns J from before it."""
        self.descend(problem)
        return problem.value()

    def descend(self, problem: CurvatureOracle) -> None:
        """Move the weights."""
        raise NotImplementedError


class Ray(NamedTuple):
    """J along ``w + t·direction``."""

    problem: CurvatureOracle
    point: Tensor
    direction: Tensor

    def value(self, t: float) -> float:
        """J there, +∞ where it is not finite."""
        return finite(self.problem.value(self.point + t * self.direction))

    def backtrack(self, first: float, alpha: float = 1e-4, beta: float = 0.5) -> float:
        """The first t of first, β·first, … with J(w + t d) ≤ J(w) + α t ∇Jᵀd (Armijo 1966).

        Up to the rounding of J: a last Newton step gains less than that, and is to be taken.
        Returns 0 where d does not descend, or too little to be seen.
        """
        start = self.problem.value()
        slope = torch.dot(self.problem.gradient(), self.direction).item()
        least, bound = first * SHORTEST, start.item() + rounding(start)
        while slope < 0 and first >= least:
            if self.value(first) <= bound + alpha * first * slope:
                return first
            first *= beta
        return 0.0


def finite(value: Tensor) -> float:
    """A scalar's number, +∞ where it is not finite."""
    number = value.item()
    return number if math.isfinite(number) else math.inf


def rounding(value: Tensor) -> float:
    """By how much two equal values of J may differ.

    >>> rounding(torch.tensor(1.0, dtype=torch.float64)) < 1e-15
    True
    """
    return 4 * torch.finfo(value.dtype).eps * abs(value.item())


def reduction_ratio(start: Tensor, end: float, predicted: float) -> float:
    """ρ = (J(w + p) − J(w)) / predicted change: 1 where the quadratic model is right.

    Changes within the rounding of J are taken to be as predicted.

    >>> reduction_ratio(torch.tensor(2.0), 1.0, -2.0)
    0.5
    """
    change, noise = end - start.item(), rounding(start)
    if abs(change) <= noise and abs(predicted) <= noise:
        return 1.0
    return change / predicted if predicted < 0 else -math.inf


def adapted(damping: float, ratio: float, rate: float) -> float:
    """The next λ: more where the model promised too much, less where it can be relied on.

    Levenberg–Marquardt's rule with the thresholds ¼ and ¾; λ stays within [10⁻⁹, 10⁹].

    >>> [adapted(1.0, ratio, 2.0) for ratio in (0.1, 0.5, 0.9)]
    [2.0, 1.0, 0.5]
    """
    if ratio < 0.25:
        return min(damping * rate, 1e9)
    return max(damping / rate, 1e-9) if ratio > 0.75 else damping
