"""What optimizers that use the curvature of J have in common."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from truerisk.core.checks import check_float
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError
from truerisk.optimizer.line_search import rename_step_length, rounding
from truerisk.optimizer.needs import Needs, refuse_shards


class SecondOrderOptimizer(Optimizer):
    """An optimizer whose ``step`` is given a `CurvatureOracle`; it takes one parameter group.

    The group's ``step_length`` is the length of the last step, in units of the direction it went;
    zero where no decrease of J was found and the weights stayed.

    Args:
        params: parameters, in one group.
        lr: the first step length tried.
        numbers: other hyperparameters, by name.

    Raises:
        ConfigError: ``lr`` is not positive, there are several groups, or parameters are in parts.
    """

    needs = Needs(curvature=True, clip=False, scaler=False, groups=False, projection=False)

    def __init__(self, params: Any, lr: float, **numbers: Any) -> None:
        check_float("optimizer.lr", lr, above=True)
        super().__init__(params, {"lr": lr, **numbers, "step_length": 0.0})
        if len(self.param_groups) > 1:
            raise ConfigError("curvature joins all parameters: set param_groups=all")
        refuse_shards("curvature", self.param_groups[0]["params"])

    # torch calls this from `load_state_dict`, too
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        rename_step_length(self.param_groups)

    @property
    def group(self) -> dict[str, Any]:
        """The one parameter group."""
        return self.param_groups[0]

    @property
    def memory(self) -> dict[str, Any]:
        """What is remembered from step to step besides numbers: flat vectors, by name."""
        return self.state[self.group["params"][0]]

    @torch.no_grad()
    def step(self, oracle: CurvatureOracle) -> Tensor:  # type: ignore[override]
        """Take one step; returns J from before it."""
        self.descend(oracle)
        return oracle.value()

    def descend(self, oracle: CurvatureOracle) -> None:
        """Move the weights."""
        raise NotImplementedError


def reduction_ratio(start: Tensor, end: float, predicted: float) -> float:
    """Return ρ = (J(w + p) − J(w)) / predicted change: 1 where the quadratic model is right.

    Changes within the rounding of J are taken to be as predicted.

    Args:
        start: J(w), a scalar.
        end: J(w + p).
        predicted: the change that the model predicts.

    >>> reduction_ratio(torch.tensor(2.0), 1.0, -2.0)
    0.5
    """
    change, noise = end - start.item(), rounding(start)
    if abs(change) <= noise and abs(predicted) <= noise:
        return 1.0
    # a model that promises no decrease is never right
    if not predicted < 0:  # nan too
        return -math.inf
    return change / predicted


def adapt_damping(damping: float, ratio: float, rate: float) -> float:
    """Return the next λ: more where the model promised too much, less where it is reliable.

    Levenberg–Marquardt's rule with the thresholds ¼ and ¾; λ stays within [10⁻⁹, 10⁹].

    Args:
        damping: λ.
        ratio: ρ.
        rate: the factor by which λ changes.

    >>> [adapt_damping(1.0, ratio, 2.0) for ratio in (0.1, 0.5, 0.9)]
    [2.0, 1.0, 0.5]
    """
    if ratio < 0.25:
        return min(damping * rate, 1e9)
    if ratio > 0.75:
        return max(damping / rate, 1e-9)
    return damping
