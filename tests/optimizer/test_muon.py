"""Muon: the orthogonal step, the split, and its state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.optimizer import Muon, parameter_groups

NEWTON_SCHULZ_ERROR = 0.33
"""Bound on ‖step − U Vᵀ‖₂: five iterations send σ/‖G‖ ≥ 0.01 into [0.682, 1.134]; the rest of it
is bfloat16 rounding."""


def newton_schulz(sigma):
    """Five iterations of the quintic, on singular values relative to the Frobenius norm."""
    for _ in range(5):
        sigma = 3.4445 * sigma - 4.7750 * sigma**3 + 2.0315 * sigma**5
    return sigma


def test_newton_schulz_bound():
    sigma = newton_schulz(torch.logspace(-2, 0, 100_001, dtype=torch.float64))
    assert 0.681 < sigma.min() < 0.683 and 1.133 < sigma.max() < 1.135


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(24, 10), nn.Linear(10, 3))


def run(model, optimizer, steps, seed=1):
    stream = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(16, 1, 8, generator=stream)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("shape", [(20, 20), (40, 10), (10, 40), (100, 40)])
def test_step_is_the_polar_factor(shape):
    """−ΔW/lr = √max(1, rows/columns)·U Vᵀ up to the error of Newton–Schulz."""
    torch.manual_seed(0)
    w = torch.zeros(shape, requires_grad=True)
    u, _, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sigma = torch.linspace(1, 0.2, min(shape))
    w.grad = u * sigma @ vt
    Muon([w], lr=1.0).step()
    step = -w.detach() / max(1, shape[0] / shape[1]) ** 0.5
    error = torch.linalg.matrix_norm(step - u @ vt, ord=2)
    assert 0.01 < error < NEWTON_SCHULZ_ERROR
    expected = u * newton_schulz(sigma / w.grad.norm()) @ vt
    assert torch.linalg.matrix_norm(step - expected, ord=2) < 0.05
    cosine = (step * (u @ vt)).sum() / step.norm() / (u @ vt).norm()
    assert cosine > 0.97


def test_momentum_is_an_average_with_lookahead():
    """The second step orthogonalises (1 − μ) g₂ + μ m₂ with m₂ = μ m₁ + (1 − μ) g₂."""
    torch.manual_seed(0)
    g1, g2 = torch.randn(6, 6), torch.randn(6, 6)
    w = torch.zeros(6, 6, requires_grad=True)
    optimizer = Muon([w], lr=1.0, momentum=0.5, ns_steps=5)
    for g in (g1, g2):
        w.grad, before = g.clone(), w.detach().clone()
        optimizer.step()
    m2 = 0.25 * g1 + 0.5 * g2
    u, _, vt = torch.linalg.svd(0.5 * g2 + 0.5 * m2)
    error = torch.linalg.matrix_norm(before - w.detach() - u @ vt, ord=2)
    assert error < NEWTON_SCHULZ_ERROR


def test_what_is_not_a_matrix_goes_to_adamw():
    model, other = network(), network()
    mine = Muon(list(model.parameters()), lr=0.0, weight_decay=0.1, adamw_lr=0.01)
    rest = [p for p in other.parameters() if p.ndim != 2]
    theirs = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1)
    for a, b in zip(run(model, mine, 5), run(other, theirs, 5), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_rule_takes_layers_out():
    model = network()
    rules = [{"name": "^3", "muon": False, "adamw_lr": 0.5}]
    optimizer = Muon(parameter_groups(model, rules, Muon), lr=0.02, adamw_lr=0.01)
    names = [group["param_names"] for group in optimizer.param_groups]
    assert names == [["2.weight"], ["0.weight", "0.bias", "2.bias"], ["3.weight", "3.bias"]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.01, 0.5]


def test_no_decay_reaches_the_adamw_part():
    rules = [{"max_ndim": 1, "weight_decay": 0.0}]
    optimizer = Muon(parameter_groups(network(), rules, Muon), weight_decay=0.1)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.1, 0.0]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"max_ndim": 1, "lr": 0.1}], "adamw_lr"),
        ([{"name": "2.weight", "adamw_lr": 0.1}], "'lr'"),
        ([{"name": "weight|bias", "muon": False}], "no matrix"),
    ],
)
def test_refusals(rules, message):
    groups = parameter_groups(network(), rules, Muon)
    with pytest.raises(ConfigError, match=message):
        Muon(groups)


def test_groups_are_those_of_the_parts():
    optimizer = Muon(list(network().parameters()))
    parts = [group for part in optimizer.parts for group in part.param_groups]
    assert all(a is b for a, b in zip(optimizer.param_groups, parts, strict=True))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    parts = [group for part in optimizer.parts for group in part.param_groups]
    assert all(a is b for a, b in zip(optimizer.param_groups, parts, strict=True))


def test_state_round_trip(tmp_path):
    model = network()
    optimizer = Muon(list(model.parameters()), weight_decay=0.01)
    run(model, optimizer, 3)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    expected = run(model, optimizer, 3, seed=2)
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = network()
    again.load_state_dict(weights)
    resumed = Muon(list(again.parameters()), weight_decay=0.01)
    resumed.load_state_dict(state)
    for a, b in zip(run(again, resumed, 3, seed=2), expected, strict=True):
        assert torch.equal(a, b)
