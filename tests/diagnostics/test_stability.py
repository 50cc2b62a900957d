"""Thresholds against what torch's own optimizers do on a quadratic just below and above them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import optim

from truerisk.diagnostics.stability import find_stability_limit
from truerisk.objective import DenseOperator, ScaledOperator

METHODS = {
    "gd": partial(optim.SGD, lr=0.1),
    "coupled decay": partial(optim.SGD, lr=0.1, weight_decay=3.0),
    "heavy ball": partial(optim.SGD, lr=0.1, momentum=0.8),
    "dampened": partial(optim.SGD, lr=0.1, momentum=0.8, dampening=0.5),
    "nesterov": partial(optim.SGD, lr=0.1, momentum=0.8, nesterov=True),
    "adam": partial(optim.Adam, lr=0.1, betas=(0.9, 0.999)),
    "adam, coupled decay": partial(optim.Adam, lr=0.1, betas=(0.5, 0.999), weight_decay=2.0),
    "amsgrad": partial(optim.Adam, lr=0.1, amsgrad=True),
    "adamw": partial(optim.AdamW, lr=0.1, weight_decay=4.0),
    "rmsprop": partial(optim.RMSprop, lr=0.1),
    "rmsprop with momentum": partial(optim.RMSprop, lr=0.1, momentum=0.5),
    "adagrad": partial(optim.Adagrad, lr=0.1, lr_decay=1e-3),
}
KNOWN = {"gd": 2, "heavy ball": 3.6, "nesterov": 3.6 / 2.6, "adam": 38, "rmsprop": 2, "adagrad": 2}
DIVISORS = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
LONG_AGO = 10**7
"""Steps after which bias corrections are gone."""


def prepare(optimizer, w):
    """Set the squares so that after this step they are those of ``DIVISORS``, whatever w.grad."""
    state, (group,), target = optimizer.state[w], optimizer.param_groups, DIVISORS.square()
    decayed = not group.get("decoupled_weight_decay", False)
    gradient = w.grad + group["weight_decay"] * w.detach() * decayed
    for name, kept in (
        ("exp_avg_sq", group.get("betas", [0])[-1]),
        ("square_avg", group.get("alpha")),
    ):
        if name in state:
            state[name].copy_((target - (1 - kept) * gradient.square()) / kept)
    if "max_exp_avg_sq" in state:
        state["max_exp_avg_sq"].zero_()
    if "sum" in state:
        state["sum"].copy_(target - gradient.square())
    if "step" in state:
        state["step"].fill_(1000 if "sum" in state else LONG_AGO)


def descent(make, a, steps=100):
    """‖w‖ at the end over ‖w‖ half-way, on ½wᵀAw with the preconditioner held."""
    w = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    w.grad, optimizer, norms = torch.zeros_like(w), make([w]), []
    optimizer.step()  # makes the state
    w.data.fill_(1e-9)  # so that it grows without drowning the squares
    for _ in range(steps):
        w.grad = a @ w.detach()
        prepare(optimizer, w)
        optimizer.step()
        norms.append(float(w.detach().norm()))
    return optimizer, w, norms[-1] / norms[steps // 2]


@pytest.mark.parametrize("method", METHODS)
def test_steps_grow_just_above_the_threshold_and_shrink_just_below(method, symmetric_matrix):
    make, a = METHODS[method], symmetric_matrix(0.5, 1.0, 2.0)
    optimizer, w, _ = descent(make, a, 3)
    known = find_stability_limit(optimizer, {"w": w})
    if method in KNOWN:
        assert known.threshold == pytest.approx(KNOWN[method], rel=1e-12)
    # the multiple of A whose sharpness is at the threshold
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        scaled = ScaledOperator(DenseOperator(middle * a), known.scale["w"], known.shift["w"])
        below = torch.linalg.eigvalsh(scaled.dense())[-1] < known.threshold
        low, high = (middle, high) if below else (low, middle)
    assert descent(make, 0.99 * low * a)[2] < 1
    assert descent(make, 1.01 * low * a)[2] > 1


def test_the_step_length_of_each_group_counts():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.3, "weight_decay": 0.2}]
    found = find_stability_limit(optim.SGD(groups, lr=1.0), {"b": b, "a": a})
    assert found.scale["a"].tolist() == pytest.approx([0.1, 0.1])
    assert found.shift["b"].tolist() == pytest.approx([0.2, 0.2])
    groups[1]["momentum"] = 0.9
    assert find_stability_limit(optim.SGD(groups, lr=1.0), {"b": b, "a": a}) is None


class Own(optim.SGD):
    def step(self, closure=None):
        super().step(closure)


class Inherited(optim.SGD):
    pass


def test_what_is_not_known_is_none():
    w = torch.nn.Parameter(torch.ones(2))
    assert find_stability_limit(optim.Adam([w]), {"w": w}) is None  # has no squares yet
    for unknown in (optim.Adamax, optim.NAdam, Own, partial(optim.SGD, maximize=True)):
        optimizer = unknown([w], lr=0.1)
        w.grad = torch.ones(2)
        optimizer.step()
        assert find_stability_limit(optimizer, {"w": w}) is None
    assert find_stability_limit(Inherited([w], lr=0.1), {"w": w}).threshold == 2
