"""The claims on bounds, what turns them, and the numbers that bounds are made of."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom

from truerisk.data import GaussianPopulation, gaussians
from truerisk.reproductions.generalization_bound import invert_binomial_tail, invert_divergence


def test_no_claim_fails(at):
    """Twenty data sets decide about the order of the bounds, and not about 95 %."""
    done = at.quick("generalization_bound")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_a_true_risk_twice_as_high(at, monkeypatch):
    """No bound on the held-out samples is one on that."""
    errors = GaussianPopulation.expect_errors
    monkeypatch.setattr(
        GaussianPopulation, "expect_errors", lambda self, *given: 2 * errors(self, *given)
    )
    for claim in ("hoeffding", "binomial", "hoeffding_is_loose"):
        verdict = at.study("generalization_bound", claim, "seed=range(8)")
        assert verdict == "does not hold", claim


@pytest.mark.parametrize("errors", [0, 7, 40])
def test_the_tail_is_delta_at_its_inverse(errors):
    bound = invert_binomial_tail(errors, 40)
    assert errors == 40 or math.isclose(binom.cdf(errors, 40, bound), 0.05, rel_tol=1e-9)
    assert bound <= 1


@pytest.mark.parametrize(("share", "budget"), [(0.0, 0.1), (0.2, 0.02), (0.9, 1e-4)])
def test_the_divergence_is_the_budget_at_its_inverse(share, budget):
    q = invert_divergence(share, budget)
    known = torch.distributions.Bernoulli(share), torch.distributions.Bernoulli(q)
    assert math.isclose(torch.distributions.kl_divergence(*known), budget, rel_tol=1e-4)


def test_errors_of_a_linear_rule_are_those_of_its_samples():
    population = gaussians(num_samples=1, dimension=4, condition=9.0, prior=[1, 3]).population
    w, bias = torch.tensor([0.3, -1.0, 0.5, 0.2]), 0.4
    x, y = population.sample(400_000, torch.Generator().manual_seed(0))
    share = float(((x @ w + bias > 0) != y).double().mean())
    assert math.isclose(population.expect_errors(w, bias), share, abs_tol=0.003)
