"""The first two steps of every optimizer against their closed forms, in float64."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

CONF = Path(__file__).parents[2] / "conf"
W = torch.tensor([1.5, -0.4, 0.2, -3.0], dtype=torch.float64)
G1 = torch.tensor([0.3, -2.0, 0.01, 5.0], dtype=torch.float64)
G2 = torch.tensor([-0.7, -1.0, 0.5, 4.0], dtype=torch.float64)


@cache
def config_of(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+optimizer={name}"]).optimizer


def optimizer_of(name, params, **numbers):
    factory = instantiate(config_of(name), _partial_=True, _convert_="all", **numbers)
    return factory(params)


def stepped(name, *grads, w=W, **numbers):
    """The weights after one step for each gradient."""
    w = w.clone().requires_grad_()
    optimizer = optimizer_of(name, [w], **numbers)
    for grad in grads:
        w.grad = grad.clone()
        optimizer.step()
    return w.detach()


def close(actual, expected, atol=1e-14):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["gd", "sgd"])
def test_sgd_with_coupled_l2(name):
    expected = W - 0.2 * (G1 + 0.1 * W)
    close(stepped(name, G1, lr=0.2, weight_decay=0.1), expected)


def test_momentum_is_the_heavy_ball():
    """Polyak: w₂ = w₁ − lr g₂ + μ (w₁ − w₀)."""
    w1 = W - 0.2 * G1
    close(stepped("momentum", G1, lr=0.2), w1)
    close(stepped("momentum", G1, G2, lr=0.2), w1 - 0.2 * G2 + 0.9 * (w1 - W))


def test_nesterov_in_its_lookahead_variable():
    """Sutskever's form: θₜ₊₁ = θₜ + vₜ₊₁, vₜ₊₁ = μ vₜ − lr ∇f(θₜ + μ vₜ); torch keeps θ + μ v."""
    mu, lr, v, theta = 0.9, 0.2, torch.zeros_like(W), W
    for g in (G1, G2):
        v = mu * v - lr * g
        theta = theta + v
    close(stepped("nesterov", G1, G2, lr=lr), theta + mu * v)


def test_adagrad():
    w1 = W - 0.5 * G1 / (G1.abs() + 1e-10)
    close(stepped("adagrad", G1, lr=0.5), w1)
    close(stepped("adagrad", G1, G2, lr=0.5), w1 - 0.5 * G2 / ((G1**2 + G2**2).sqrt() + 1e-10))


def test_rmsprop():
    v1 = 0.01 * G1**2
    w1 = W - 0.1 * G1 / (v1.sqrt() + 1e-8)
    v2 = 0.99 * v1 + 0.01 * G2**2
    close(stepped("rmsprop", G1, G2, lr=0.1), w1 - 0.1 * G2 / (v2.sqrt() + 1e-8))


def test_adadelta():
    rho, eps = 0.95, 1e-6
    v1 = (1 - rho) * G1**2
    d1 = (eps / (v1 + eps)).sqrt() * G1
    u1, v2 = (1 - rho) * d1**2, rho * v1 + (1 - rho) * G2**2
    d2 = ((u1 + eps) / (v2 + eps)).sqrt() * G2
    close(stepped("adadelta", G1, G2), W - d1 - d2)


def adam_step(t, m, v, b1=0.9, b2=0.999, eps=1e-8):
    return (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)


def moments(b1=0.9, b2=0.999):
    m1, v1 = (1 - b1) * G1, (1 - b2) * G1**2
    return (m1, v1), (b1 * m1 + (1 - b1) * G2, b2 * v1 + (1 - b2) * G2**2)


def test_adam():
    one, two = moments()
    w1 = W - 0.1 * adam_step(1, *one)
    close(stepped("adam", G1, lr=0.1), w1)
    close(w1, W - 0.1 * G1 / (G1.abs() + 1e-8))
    close(stepped("adam", G1, G2, lr=0.1), w1 - 0.1 * adam_step(2, *two))


def test_adam_couples_l2_and_adamw_decouples_it():
    g = G1 + 0.3 * W
    close(stepped("adam", G1, lr=0.1, weight_decay=0.3), W - 0.1 * g / (g.abs() + 1e-8))
    expected = (1 - 0.1 * 0.3) * W - 0.1 * G1 / (G1.abs() + 1e-8)
    close(stepped("adamw", G1, lr=0.1, weight_decay=0.3), expected)


def test_nadam():
    """Its momentum schedule is kept in float32 by torch, whatever the weights are."""
    mu1, mu2 = (0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in (1, 2))
    v = G1.abs() + 1e-8
    expected = W - 0.1 * ((1 - mu1) * G1 / (1 - mu1) + mu2 * 0.1 * G1 / (1 - mu1 * mu2)) / v
    close(stepped("nadam", G1, lr=0.1), expected, atol=1e-8)


def test_radam_begins_as_momentum():
    """Up to step 5 the variance's degrees of freedom are too few: plain debiased momentum."""
    m2 = (0.9 * 0.1 * G1 + 0.1 * G2) / (1 - 0.9**2)
    close(stepped("radam", G1, G2, lr=0.1), W - 0.1 * G1 - 0.1 * m2)


def test_adamax():
    u2 = torch.maximum(0.999 * (G1.abs()), G2.abs() + 1e-8)
    m2 = 0.9 * 0.1 * G1 + 0.1 * G2
    w1 = W - 0.1 * G1 / (G1.abs() + 1e-8)
    close(stepped("adamax", G1, G2, lr=0.1), w1 - 0.1 / (1 - 0.9**2) * m2 / u2, atol=1e-8)


def test_adafactor_of_a_vector():
    """At t = 1 the decay is 1 − 1 = 0: v = g², a sign step of min(lr, 1/√1)·rms(w)."""
    rms = W.square().mean().sqrt()
    close(stepped("adafactor", G1, lr=0.1), W - 0.1 * rms * G1.sign(), atol=1e-12)


def test_lion():
    w1 = (1 - 0.1 * 0.3) * W - 0.1 * G1.sign()
    close(stepped("lion", G1, lr=0.1, weight_decay=0.3), w1)
    inner = 0.9 * 0.01 * G1 + 0.1 * G2
    expected = (1 - 0.1 * 0.3) * w1 - 0.1 * inner.sign()
    close(stepped("lion", G1, G2, lr=0.1, weight_decay=0.3), expected)


def test_schedule_free_adamw():
    """y₁ = x₁ = z₁ after one step; then c = 1/2 and y₂ = 0.1 z₂ + 0.9 x₂."""
    w = W.clone().requires_grad_()
    optimizer = optimizer_of("schedule_free_adamw", [w], lr=0.1, weight_decay=0.3)
    d1 = G1 / (G1.abs() + 1e-8) + 0.3 * W
    z1 = W - 0.1 * d1
    w.grad = G1.clone()
    optimizer.step()
    close(w.detach(), z1, atol=1e-12)
    v2 = (0.999 * 0.001 * G1**2 + 0.001 * G2**2) / (1 - 0.999**2)
    z2 = z1 - 0.1 * (G2 / (v2.sqrt() + 1e-8) + 0.3 * z1)
    x2 = (z1 + z2) / 2
    w.grad = G2.clone()
    optimizer.step()
    close(w.detach(), 0.1 * z2 + 0.9 * x2, atol=1e-12)
    optimizer.eval()
    close(w.detach(), x2, atol=1e-12)
    optimizer.train()
    close(w.detach(), 0.1 * z2 + 0.9 * x2, atol=1e-12)


def test_prodigy_begins_with_its_first_distance():
    """Step one has no distance yet: d = d₀, and an Adam step of d₀ without debiasing."""
    w1 = W - 1e-6 * 0.1 * G1 / (math.sqrt(0.001) * G1.abs() + 1e-8)
    close(stepped("prodigy", G1), w1, atol=1e-16)


def test_prodigy_distance_after_two_steps():
    """d̂ = Σ β³⁻ᵗ d/d₀ · d ⟨g, w₀ − w⟩ / ‖Σ β³⁻ᵗ d/d₀ · d g‖₁, both sums with their decay."""
    w = W.clone().requires_grad_()
    optimizer = optimizer_of("prodigy", [w])
    for g in (G1, G2):
        w.grad = g.clone()
        before = w.detach().clone()
        optimizer.step()
    beta3, d0 = math.sqrt(0.999), 1e-6
    numerator = d0 * (G2 @ (W - before))
    denominator = (beta3 * d0 * G1 + d0 * G2).abs().sum()
    expected = max(d0, (numerator / denominator).item())
    assert optimizer.param_groups[0]["d"] == pytest.approx(expected, rel=1e-5)


def descend(name, decay, steps=20, **numbers):
    """Weights on a badly scaled quadratic after some steps with the loss ½ wᵀ A w."""
    scale = torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.float64)
    w = W.clone().requires_grad_()
    lr, rate = 0.05, 0.2
    coupled = rate if decay == "coupled" else 0.0
    optimizer = optimizer_of(name, [w], lr=lr, weight_decay=coupled, **numbers)
    for _ in range(steps):
        w.grad = (scale * w).detach()
        shrink = (1 - lr * rate) if decay == "decoupled" else 1.0
        with torch.no_grad():
            w.mul_(shrink)
        optimizer.step()
    return w.detach()


def test_coupled_l2_is_decoupled_decay_for_sgd_only():
    """At the same rate λ: w − lr(∇J + λw) = (1 − lr·λ)w − lr ∇J, which Adam's division breaks."""
    close(descend("sgd", "coupled"), descend("sgd", "decoupled"), atol=1e-13)
    apart = (descend("adam", "coupled") - descend("adam", "decoupled")).abs().max()
    assert apart > 0.01
    adamw = stepped("adamw", G1, lr=0.05, weight_decay=0.2)
    by_hand = stepped("adam", G1, w=(1 - 0.05 * 0.2) * W, lr=0.05)
    close(adamw, by_hand)
