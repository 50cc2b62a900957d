"""How sharp J may be for a method's step length, read off its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer


class Stability(NamedTuple):
    """When a method's steps on a quadratic wᵀHw/2 grow instead of shrink.

    They grow where ``λmax(S^½ (H + C) S^½) > threshold``, with S and C diagonal: ``scale`` and
    ``shift``, a tensor a parameter.
    """

    scale: dict[str, Tensor]
    shift: dict[str, Tensor]
    threshold: float


class Rule(NamedTuple):
    """What one parameter contributes."""

    scale: Tensor
    shift: float
    threshold: float


def stability(optimizer: Optimizer, named: Mapping[str, Tensor]) -> Stability | None:
    """The next step's threshold; None where none is known, or not before the first step.

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

    Sources: Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of
    Stability", ICLR 2021, appendix B; Cohen et al., "Adaptive Gradient Methods at the Edge of
    Stability" (2022), §2. The row of AdamW: at the threshold ``w ← (1 − ηλ)w − ηP⁻¹m`` has an
    eigenvalue −1, where ``ηP⁻¹H(1 − β₁) = (2 − ηλ)(1 + β₁)``.
    """
    rule = RULES.get(f"{type(optimizer).step.__module__}.{type(optimizer).step.__qualname__}")
    names = {id(p): name for name, p in named.items()}
    found: dict[str, Rule] = {}
    for group in optimizer.param_groups if rule else ():
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if rule is not None and id(p) in names and not group["maximize"]:
                found[names[id(p)]] = rule(group, p.detach(), state)
    thresholds = {r.threshold for r in found.values()}
    moving = any(bool(r.scale.any()) for r in found.values())
    if len(thresholds) != 1 or len(found) != len(named) or not moving:
        return None
    scale = {name: r.scale for name, r in found.items()}
    shift = {name: torch.full_like(r.scale, r.shift) for name, r in found.items()}
    return Stability(scale, shift, thresholds.pop())


def _sgd(group: Mapping[str, Any], p: Tensor, _: Mapping[str, Any]) -> Rule:
    momentum, kept = group["momentum"], 1.0
    if momentum:
        kept = 1 - group["dampening"] + (2 * momentum if group["nesterov"] else 0)
    scale = torch.full_like(p, float(group["lr"]))
    return Rule(scale, group["weight_decay"], (2 + 2 * momentum) / kept)


def _adam(group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]) -> Rule:
    beta, decay = group["betas"][0], group["weight_decay"]
    threshold = (2 + 2 * beta) / (1 - beta)
    if not state:
        return Rule(torch.zeros_like(p), 0.0, threshold)
    squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    taken = float(state["step"])
    root = (squares / (1 - group["betas"][1] ** taken)).sqrt() + group["eps"]
    scale = float(group["lr"]) / (root * (1 - beta**taken))
    if group["decoupled_weight_decay"]:
        return Rule(scale * (2 / (2 - float(group["lr"]) * decay)), 0.0, threshold)
    return Rule(scale, decay, threshold)


def _rmsprop(group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]) -> Rule:
    threshold = 2 + 2 * group["momentum"]
    if not state:
        return Rule(torch.zeros_like(p), 0.0, threshold)
    squares = state["square_avg"]
    if group["centered"]:
        squares = squares - state["grad_avg"].square()
    return Rule(
        float(group["lr"]) / (squares.sqrt() + group["eps"]), group["weight_decay"], threshold
    )


def _adagrad(group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]) -> Rule:
    taken = float(state["step"])
    if not taken:
        return Rule(torch.zeros_like(p), 0.0, 2.0)
    rate = float(group["lr"]) / (1 + (taken - 1) * group["lr_decay"])
    return Rule(rate / (state["sum"].sqrt() + group["eps"]), group["weight_decay"], 2.0)


RULES: dict[str, Callable[[Mapping[str, Any], Tensor, Mapping[str, Any]], Rule]] = {
    "torch.optim.sgd.SGD.step": _sgd,
    "torch.optim.adam.Adam.step": _adam,
    "torch.optim.rmsprop.RMSprop.step": _rmsprop,
    "torch.optim.adagrad.Adagrad.step": _adagrad,
}
"""By the method that takes the step, which a subclass may have inherited."""
