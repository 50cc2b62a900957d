"""The claims on surrogate losses, and what turns them."""

from __future__ import annotations

import math

import pytest
import torch

from truerisk.data import noisy_linear
from truerisk.loss import Squared
from truerisk.reproductions.surrogate_losses import (
    LinearRule,
    integrate_divergence,
    predict_spread,
    predict_squared_excess,
)
from truerisk.task.regression import Regression
from truerisk.verdicts import write_grids

OUTLIERS = write_grids(
    {
        **{"data": "noisy_linear", "data.source.dimension": 5, "data.num_train": 200},
        **{"loss": "mae", "optimizer.lr": 0.2, "data.label_noise": 0.1},
    }
)
CLASSES = write_grids({"loss": "squared", "optimizer.lr": 0.2, "data.num_train": 400})


def test_no_claim_fails(at):
    done = at.quick("surrogate_losses")
    assert done.code == 0
    assert 'class="holds"' in done.page


def test_deviations_that_are_squared(at, monkeypatch):
    """What is called least deviations goes with the outliers then."""
    monkeypatch.setattr(torch.nn.L1Loss, "forward", lambda self, f, y: (f - y).square())
    assert at.study("surrogate_losses", "mae_keeps", OUTLIERS) == "does not hold"


def test_a_loss_that_takes_one_class_for_granted(at, monkeypatch):
    """Its rule is not Bayes', however many samples there are."""
    monkeypatch.setattr(
        Squared, "forward", lambda self, s, y: (s[..., 1] - 0.3 * y).square() + s[..., 0].square()
    )
    assert at.study("surrogate_losses", "squared", CLASSES) == "does not hold"


def test_spreads_are_those_of_samples():
    """Least squares' closed form 2, and the logistic one's by the mean of p(1 − p) over samples."""
    assert predict_spread("squared") == 2
    t = 1 + torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).double()
    p = torch.sigmoid(2 * t)
    assert predict_spread("bce") == pytest.approx(float(1 / (4 * (p * (1 - p)).mean())), rel=0.01)
    assert predict_spread("squared") < predict_spread("bce") < predict_spread("hinge")


def test_the_divergence_of_the_bayes_rule_is_none_and_of_a_coin_the_information():
    best = LinearRule([-2.0, 2.0], 2.0, 1.0, 0.0)
    assert integrate_divergence(best) == pytest.approx(0, abs=1e-12)
    coin = LinearRule([0.0, 0.0], 1e-12, 0.0, 0.5)
    t = 1 + torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).double()
    entropy = torch.distributions.Bernoulli(torch.sigmoid(2 * t)).entropy().mean()
    assert integrate_divergence(coin) == pytest.approx(math.log(2) - float(entropy), rel=0.01)


def test_label_noise_moves_quantities_to_one_side():
    y = noisy_linear(num_samples=200, dimension=2).y
    few, more = (
        Regression().add_label_noise(y, share, 1, torch.Generator().manual_seed(3)) - y
        for share in (0.1, 0.25)
    )
    assert int((few != 0).sum()) == 20 and int((more != 0).sum()) == 50
    assert bool(((few != 0) <= (more != 0)).all())
    torch.testing.assert_close(few[few != 0], torch.full((20,), 10 * float(y.std(0, False))))
    assert predict_squared_excess("mae", 0.1) < 0.1 < 2 < predict_squared_excess("mse", 0.1)
