"""How sharp J may be for the step length of an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer


class StabilityLimit(NamedTuple):
    """The limit beyond which a method's steps on a quadratic wᵀHw/2 grow instead of shrink.

    They grow where ``λmax(S^½ (H + C) S^½) > threshold``, with S and C diagonal: ``scale`` and
    ``shift``, a tensor a parameter.
    """

    scale: dict[str, Tensor]
    shift: dict[str, Tensor]
    threshold: float


class ParameterLimit(NamedTuple):
    """What one parameter contributes to the limit: S, C and the threshold."""

    scale: Tensor
    shift: float
    threshold: float


def find_stability_limit(
    optimizer: Optimizer, named: Mapping[str, Tensor]
) -> StabilityLimit | None:
    """Find the limit of the next step.

    S is the step length η of each weight. With P the diagonal that the method divides by, frozen,

    | method                                | S                 | C | threshold             |
    |---------------------------------------|-------------------|---|-----------------------|
    | gradient descent                      | η                 | λ | 2                     |
    | heavy ball, momentum μ, dampening τ   | η                 | λ | (2 + 2μ)/(1 − τ)      |
    | Nesterov                              | η                 | λ | (2 + 2μ)/(1 + 2μ)     |
    | RMSProp, Adagrad                      | η/P               | λ | 2 (heavy ball: 2 + 2μ)|
    | Adam: P = (1 − β₁ᵗ)(√v̂ + ε)           | η/P               | λ | (2 + 2β₁)/(1 − β₁)    |
    | AdamW                                 | 2/(2 − ηλ) · η/P  | 0 | (2 + 2β₁)/(1 − β₁)    |

    with λ the optimizer's weight decay. They hold for steps on the whole of J. Parameter groups may
    differ in all but what the threshold is made of.

    Args:
        optimizer: with its state after some steps.
        named: the trainable parameters, by name.

    Returns:
        The limit; None for a method without a known one, or where it is not known before a step.

    Sources: Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of
    Stability", ICLR 2021, appendix B; Cohen et al., "Adaptive Gradient Methods at the Edge of
    Stability" (2022), §2. The row of AdamW: at the threshold ``w ← (1 − ηλ)w − ηP⁻¹m`` has an
    eigenvalue −1, where ``ηP⁻¹H(1 − β₁) = (2 − ηλ)(1 + β₁)``.
    """
    # by the method that takes the step, as a subclass may change it
    method = type(optimizer).step
    find_limit = LIMITS.get(f"{method.__module__}.{method.__qualname__}")
    if find_limit is None:
        return None
    names = {id(p): name for name, p in named.items()}
    limits: dict[str, ParameterLimit] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if id(p) in names and not group["maximize"]:
                limits[names[id(p)]] = find_limit(group, p.detach(), optimizer.state.get(p, {}))
    thresholds = {limit.threshold for limit in limits.values()}
    moving = any(bool(limit.scale.any()) for limit in limits.values())
    if len(thresholds) != 1 or len(limits) != len(named) or not moving:
        return None
    scale = {name: limit.scale for name, limit in limits.items()}
    shift = {name: torch.full_like(limit.scale, limit.shift) for name, limit in limits.items()}
    return StabilityLimit(scale, shift, thresholds.pop())


def _limit_sgd(group: Mapping[str, Any], p: Tensor, _: Mapping[str, Any]) -> ParameterLimit:
    momentum, divisor = group["momentum"], 1.0
    if momentum:  # dampening acts on the buffer, which there is only with momentum
        divisor = 1 - group["dampening"]
        if group["nesterov"]:
            divisor += 2 * momentum
    scale = torch.full_like(p, float(group["lr"]))
    return ParameterLimit(scale, group["weight_decay"], (2 + 2 * momentum) / divisor)


def _limit_adam(group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]) -> ParameterLimit:
    beta, decay = group["betas"][0], group["weight_decay"]
    threshold = (2 + 2 * beta) / (1 - beta)
    if not state:
        return ParameterLimit(torch.zeros_like(p), 0.0, threshold)
    squares = state["exp_avg_sq"]
    if group["amsgrad"]:
        squares = state["max_exp_avg_sq"]
    t = float(state["step"])
    root = (squares / (1 - group["betas"][1] ** t)).sqrt() + group["eps"]
    scale = float(group["lr"]) / (root * (1 - beta**t))
    if group["decoupled_weight_decay"]:
        return ParameterLimit(scale * (2 / (2 - float(group["lr"]) * decay)), 0.0, threshold)
    return ParameterLimit(scale, decay, threshold)


def _limit_rmsprop(group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]) -> ParameterLimit:
    threshold = 2 + 2 * group["momentum"]
    if not state:
        return ParameterLimit(torch.zeros_like(p), 0.0, threshold)
    squares = state["square_avg"]
    if group["centered"]:
        squares = squares - state["grad_avg"].square()
    scale = float(group["lr"]) / (squares.sqrt() + group["eps"])
    return ParameterLimit(scale, group["weight_decay"], threshold)


def _limit_adagrad(group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]) -> ParameterLimit:
    t = float(state["step"])
    if not t:
        return ParameterLimit(torch.zeros_like(p), 0.0, 2.0)
    lr = float(group["lr"]) / (1 + (t - 1) * group["lr_decay"])
    scale = lr / (state["sum"].sqrt() + group["eps"])
    return ParameterLimit(scale, group["weight_decay"], 2.0)


LimitFinder = Callable[[Mapping[str, Any], Tensor, Mapping[str, Any]], ParameterLimit]
"""From a parameter's group, the parameter and its state."""

LIMITS: dict[str, LimitFinder] = {
    "torch.optim.sgd.SGD.step": _limit_sgd,
    "torch.optim.adam.Adam.step": _limit_adam,
    "torch.optim.rmsprop.RMSprop.step": _limit_rmsprop,
    "torch.optim.adagrad.Adagrad.step": _limit_adagrad,
}
"""By the method that takes the step."""
