"""Estimates of gradient noise against brute force, and over all draws they can meet."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from truerisk.diagnostics import GradientNoise
from truerisk.diagnostics.gradient_noise import (
    NoiseEstimate,
    estimate_from_two_sizes,
    estimate_noise,
    sum_squares,
)


def rows(n, p, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, generator=draw, dtype=torch.float64) + 0.5


@pytest.mark.parametrize("block", [1, 4, 16])
def test_squared_norms_are_those_of_the_groups(block):
    g, sizes = rows(16, 5), [2, 3]
    seen = sum_squares(g.split(block), sizes)
    assert list(seen.groups) == [1, 2, 4, 8, 16]
    for m, found in seen.groups.items():
        groups = g.view(-1, m, 5).mean(1)
        assert found == pytest.approx(groups.square().sum(1).mean().item(), rel=1e-14)
    for i, part in enumerate(g.split(sizes, 1)):
        assert seen.single[i] == pytest.approx(part.square().sum(1).mean().item(), rel=1e-14)
        assert seen.mean[i] == pytest.approx(part.mean(0).square().sum().item(), rel=1e-14)
    for m, variance in seen.group_variances().items():
        groups = g.view(-1, m, 5).mean(1)
        assert variance == pytest.approx(groups.var(0).sum().item(), rel=1e-12)


def test_variance_and_signal_have_no_bias():
    """Over all ordered draws of three gradients out of four, with replacement."""
    population = rows(4, 2)
    mean = population.mean(0)
    variance = (population - mean).square().sum(1).mean().item()
    draws = [population[list(i)] for i in itertools.product(range(4), repeat=3)]
    found = [
        estimate_noise(3, g.square().sum(1).mean().item(), g.mean(0).square().sum().item())
        for g in draws
    ]
    assert sum(f.variance for f in found) / len(found) == pytest.approx(variance, rel=1e-12)
    signal = sum(f.signal for f in found) / len(found)
    assert signal == pytest.approx(mean.square().sum().item(), rel=1e-12)
    assert any(f.signal < 0 for f in found)


def test_two_batches_have_the_same_expectation():
    """A batch of one and one of three, over all draws of the three that hold the one."""
    population = rows(4, 2)
    variance = (population - population.mean(0)).square().sum(1).mean().item()
    draws = [population[list(i)] for i in itertools.product(range(4), repeat=3)]
    squares = [(g[0].square().sum().item(), g.mean(0).square().sum().item()) for g in draws]
    found = [estimate_from_two_sizes(1, small, 3, big).variance for small, big in squares]
    assert sum(found) / len(found) == pytest.approx(variance, rel=1e-12)


def test_a_batch_drawn_without_putting_back_varies_less():
    """Over all batches of two and of six out of six: the latter are one."""
    population = rows(6, 2)
    variance = population.var(0).sum().item()
    noise = NoiseEstimate(variance, 0.0)
    for m in (1, 2, 5, 6):
        means = [population[list(i)].mean(0) for i in itertools.combinations(range(6), m)]
        around = torch.stack(means) - population.mean(0)
        expected = around.square().sum(1).mean().item()
        assert noise.batch_variance(m, 6) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert noise.batch_variance(9, 6) == 0


@pytest.fixture(scope="module")
def looked(seen, losses):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = rows(70, 3), rows(70, 2, seed=1)
    found = GradientNoise(samples=64).look(seen(model, x, y, m=10))
    gradients = []
    for one, target in zip(x[:64], y[:64], strict=True):
        parts = torch.autograd.grad(losses(model, one, target), list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    return found, torch.stack(gradients)


def test_a_look_equals_a_loop_over_the_samples(looked):
    found, g = looked
    variance = g.var(0).sum().item()
    signal = g.mean(0).square().sum().item() - variance / 64
    assert found["variance"] == pytest.approx(variance, rel=1e-10)
    assert found["signal"] == pytest.approx(signal, rel=1e-9)
    assert found["noise_scale"] == pytest.approx(variance / signal, rel=1e-9)
    assert found["batch_variance"] == pytest.approx((1 - 10 / 70) * variance / 10, rel=1e-10)
    assert found["law/8"] == pytest.approx(g.view(8, 8, -1).mean(1).var(0).sum().item(), rel=1e-9)
    last = g[:, -10:]
    own, tr = last.mean(0).square().sum().item(), last.var(0).sum().item()
    ratio = math.sqrt((own - tr / 64) / ((1 - 10 / 70) * tr / 10))
    assert found["signal_to_noise/2"] == pytest.approx(ratio, rel=1e-9)


def test_the_two_batch_scale_is_that_of_groups_of_eight(looked):
    found, g = looked
    small = g.view(8, 8, -1).mean(1).square().sum(1).mean().item()
    big = g.mean(0).square().sum().item()
    variance, signal = (small - big) / (1 / 8 - 1 / 64), (64 * big - 8 * small) / (64 - 8)
    assert found["two_batch"] == pytest.approx(variance / signal, rel=1e-9)


def test_without_noise_there_is_none(seen):
    model = nn.Linear(2, 1).double()
    x, y = torch.ones(8, 2).double(), torch.ones(8, 1).double()
    found = GradientNoise(samples=8).look(seen(model, x, y))
    assert found["variance"] == pytest.approx(0, abs=1e-12)
    assert found["signal_to_noise/weight"] > 1e6
