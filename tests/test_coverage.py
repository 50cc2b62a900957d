"""Standard errors mean what they say: intervals hold the truth as often as they should."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from truerisk.config.options import RiskOptions
from truerisk.core.seeds import derive_streams
from truerisk.data import DataModule
from truerisk.data.synthetic import gaussians
from truerisk.engine.host import Host
from truerisk.engine.measure import RiskEstimator
from truerisk.engine.precision import DevicePrecision
from truerisk.loss import adapt_loss
from truerisk.model import Linear
from truerisk.objective import Objective

SETS = 200
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def trained(seed):
    """Logistic regression on one data set, by three Newton steps."""
    source = gaussians(num_samples=800, distance=1.5, condition=4.0, seed=seed)
    data = DataModule(source, val=200, test=200, standardize="none", seed=seed)
    data.prepare()
    model = Linear((2,), 1)
    loss = adapt_loss(torch.nn.BCEWithLogitsLoss(reduction="none"), "classification", 2)
    x = torch.cat([data.train.x, torch.ones(len(data.train), 1)], 1)
    w = torch.zeros(3)
    for _ in range(3):
        p = torch.sigmoid(x @ w)
        hessian = x.T @ (x * (p * (1 - p))[:, None])
        w = w - torch.linalg.solve(hessian, x.T @ (p - data.train.y))
    with torch.no_grad():
        model.output.weight.copy_(w[None, :2])
        model.output.bias.copy_(w[2:])
    risk = RiskOptions(train_samples=200)
    return SimpleNamespace(data=data, model=model, surrogate=loss, risk=risk, metrics={})


def truth(model, population):
    """Logistic and 0–1 risk: the output on class k is Gaussian, so each is one integral."""
    w, b = model.output.weight.double()[0].detach(), model.output.bias.item()
    mixing, means = population.mixing.double(), population.means.double()
    deviation = (mixing.T @ w).norm().item()
    risk, error = 0.0, 0.0
    for k, sign in enumerate((-1, 1)):
        centre = (w @ (mixing @ means[k])).item() + b
        margins = sign * (centre + deviation * NODES)
        risk += 0.5 * np.dot(WEIGHTS, np.logaddexp(0, -margins)) / math.sqrt(2 * math.pi)
        error += 0.5 * 0.5 * math.erfc(sign * centre / deviation / math.sqrt(2))
    return risk, error


def measured_split(risks, name):
    return risks.measure_split(name, None).name_risks(name, 0, risks.population_size(name))


def estimator(recipe):
    recipe.streams = derive_streams(0)
    host = Host(DevicePrecision(torch.device("cpu"), "64-true"))
    return RiskEstimator(recipe, Objective(recipe.model, recipe.surrogate), host)


@pytest.fixture(scope="module")
def runs():
    """What 200 runs measured, and what is true of their predictors."""
    found = []
    for seed in range(SETS):
        recipe = trained(seed)
        risks = estimator(recipe)
        measured = risks.epoch_risks(None, 0) | measured_split(risks, "test")
        whole = measured_split(risks, "train")["risk/train"]
        risk, error = truth(recipe.model, recipe.data.population)
        found.append(SimpleNamespace(measured=measured, risk=risk, error=error, whole=whole))
    return found


def covered(errors, stderrs):
    """The share of 95 % intervals that hold the truth."""
    return np.mean(np.abs(errors) <= 1.96 * np.array(stderrs))


def of(runs, name):
    return [(r.measured[name].value, r.measured[name].stderr) for r in runs]


def test_the_truth_is_what_many_samples_say():
    recipe = trained(0)
    x, y = recipe.data.population.sample(400_000, torch.Generator().manual_seed(1))
    outputs = recipe.model(x).detach()
    losses = recipe.surrogate(outputs, y)
    wrong = recipe.surrogate.compute_errors(outputs, y)
    for value, expected in zip((losses, wrong), truth(recipe.model, recipe.data.population)):
        assert abs(value.mean().item() - expected) < 4 * value.std().item() / len(y) ** 0.5


@pytest.mark.parametrize("name", ["risk", "error"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_intervals_hold_the_true_risk(runs, name, split):
    values, stderrs = zip(*of(runs, f"{name}/{split}"), strict=True)
    errors = np.array(values) - [getattr(r, name) for r in runs]
    assert 0.91 <= covered(errors, stderrs) <= 0.98


def test_train_risk_of_a_subset_covers_that_of_the_whole_set(runs):
    """200 of 400 training samples: the corrected standard error, not the larger plain one."""
    values, stderrs = zip(*of(runs, "risk/train"), strict=True)
    errors = np.array(values) - [r.whole.value for r in runs]
    assert all(r.whole.stderr == 0 for r in runs)
    assert 0.91 <= covered(errors, stderrs) <= 0.98
    assert np.mean((errors / stderrs) ** 2) == pytest.approx(1, abs=0.25)


def test_gap_covers_the_true_generalization_gap(runs):
    """f − g, with g the risk on the whole training set."""
    values, stderrs = zip(*of(runs, "risk/gap"), strict=True)
    errors = np.array(values) - [r.risk - r.whole.value for r in runs]
    assert 0.91 <= covered(errors, stderrs) <= 0.98
    assert np.mean((errors / stderrs) ** 2) == pytest.approx(1, abs=0.25)


def test_train_risk_is_too_low(runs):
    """Which is why it must not be read as an estimate of the true risk."""
    errors = [r.whole.value - r.risk for r in runs]
    assert np.mean(errors) < -2 * np.std(errors) / math.sqrt(SETS)
