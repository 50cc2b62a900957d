"""Where P is known: the true risk of the best weights, to the standard error asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from scipy.stats import norm

from truerisk.data import gaussians, noisy_linear

DISTANCE = 1.5
GAUSSIANS = ["data=gaussians", f"data.source.distance={DISTANCE}", "data.source.condition=5"]
RECIPE = [*GAUSSIANS, "model.width=8", "regularizer=[]", "trainer.max_epochs=5"]


@pytest.fixture(scope="module")
def result(run):
    """A small network in standardized units, whose P is known in raw ones."""
    return run(*RECIPE, "data.standardize=feature", "risk.true_stderr=0.0004")


def plane_integral(values):
    """E over both classes of values(x, y), by a product rule in the whitened plane."""
    population = gaussians(distance=DISTANCE, condition=5).population
    nodes, weights = hermegauss(120)
    z = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / (2 * math.pi)
    total = 0.0
    for k in range(2):
        x = (population.means[k].numpy() + z) @ population.mixing.numpy().T
        total += 0.5 * w @ values(torch.as_tensor(x, dtype=torch.float32), k)
    return total


def test_true_risk_is_the_integral_over_p(result, assembled):
    standardizer = assembled(*RECIPE, "data.standardize=feature").data.standardizer

    def loss(x, k):
        with torch.no_grad():
            return -result.network(standardizer(x)).log_softmax(1)[:, k].numpy()

    found = result.summary["risk/true"]
    expected = plane_integral(loss)
    assert abs(found.value - expected) < 3 * found.stderr
    assert abs(found.value - 0.6931) > 0.02


def test_true_risk_has_the_standard_error_asked_for(result):
    """And not a much smaller one: fresh samples cost time."""
    assert 0.9 * 0.0004 < result.summary["risk/true"].stderr <= 0.0004
    assert result.summary["risk/true"].epoch == result.summary["risk/val"].epoch


def test_true_risk_is_where_the_test_risk_says(result):
    true, test = result.summary["risk/true"], result.summary["risk/test"]
    assert true.stderr < test.stderr
    assert abs(true.value - test.value) < 3.5 * math.hypot(true.stderr, test.stderr)


def test_bayes_risk(result):
    """Two equally likely classes at distance Δ: 0–1 risk Φ(−Δ/2), log risk one integral."""
    error = result.summary["error/bayes"]
    assert abs(error.value - norm.cdf(-DISTANCE / 2)) < 3 * error.stderr < 0.01
    nodes, weights = hermegauss(80)
    margins = DISTANCE**2 / 2 + DISTANCE * nodes
    expected = weights @ np.logaddexp(0, -margins) / math.sqrt(2 * math.pi)
    risk = result.summary["risk/bayes"]
    assert abs(risk.value - expected) < 3 * risk.stderr < 0.01
    assert risk.value < result.summary["risk/true"].value


def test_no_more_samples_than_allowed(run):
    result = run(*RECIPE, "risk.true_stderr=1e-6", "risk.true_samples=20000")
    deviation = result.summary["risk/true"].stderr * math.sqrt(20_000)
    test = result.summary["risk/test"].stderr * math.sqrt(400)
    assert deviation == pytest.approx(test, rel=0.15)


def test_regression(run):
    """True risk of a straight line on a cubic: its distance to the mean, plus the noise."""
    given = ["data=polynomial", "loss=mse", "model=linear", "optimizer=lbfgs", "regularizer=[]"]
    result = run(*given, "trainer.max_epochs=3", "risk.true_stderr=0.002")
    nodes, weights = leggauss(20)
    with torch.no_grad():
        outputs = result.model(torch.tensor(nodes, dtype=torch.float32)[:, None])[:, 0].numpy()
    squares = (outputs - (4 * nodes**3 - 3 * nodes)) ** 2
    expected = weights @ squares / 2 + 0.2**2
    found = result.summary["risk/true"]
    assert found.stderr <= 0.002 < expected / 100
    assert abs(found.value - expected) < 3 * found.stderr
    assert abs(result.summary["risk/bayes"].value - 0.04) < 3 * result.summary["risk/bayes"].stderr
    assert "error/true" not in result.summary


def test_no_true_risk_where_p_is_unknown(run):
    result = run("data=iris", "model=linear", "trainer.max_epochs=1")
    assert {"risk/test", "error/test"} <= set(result.summary)
    assert not [name for name in result.summary if name.endswith(("true", "bayes"))]


@pytest.mark.parametrize(
    "scaled", [[], ["data.standardize=feature", "data.standardize_target=true"]]
)
def test_the_true_risk_of_a_linear_model_is_an_integral(run, scaled):
    """As many fresh samples come to the same, in the units of the source."""
    given = ["data=noisy_linear", "data.source.condition=9", "loss=mse", "model=linear"]
    result = run(*given, *scaled, "optimizer=newton", "trainer.max_epochs=1")
    found = result.summary["risk/true"]
    assert found.stderr == 0 and result.summary["risk/bayes"].value == 1.0
    population = noisy_linear(condition=9).population
    x, y = population.sample(400_000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        losses = (result.model(x) - y).double().square()
    assert abs(losses.mean() - found.value) < 4 * losses.std() / 400_000**0.5
    assert found.value > 1.05
