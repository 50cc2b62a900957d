"""Targets in any units: standardized inside, and told in their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import truerisk
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate
from truerisk.loss import adapt_loss

SHORT = ["model=linear", "trainer.max_epochs=20", "optimizer.lr=0.1", "trainer.precision=64-true"]
MEAN, SCALE = [100.0, -3.0], [20.0, 0.5]


class Pinball(nn.Module):
    """A loss of differences, of degree 1, which torch has none of."""

    def forward(self, outputs, targets):
        rest = targets - outputs
        return torch.maximum(0.9 * rest, -0.1 * rest)


class Poisson(nn.Module):
    """A loss of the outputs' exponentials, which a change of units would spoil."""

    def forward(self, outputs, targets):
        return outputs.exp() - targets * outputs


class Whole(nn.Module):
    """One number a sample out of several columns."""

    def forward(self, outputs, targets):
        return (outputs - targets).square().sum(1)


@pytest.mark.parametrize(
    ("loss", "degree"),
    [
        (nn.MSELoss(reduction="none"), 2),
        (nn.L1Loss(reduction="none"), 1),
        (nn.HuberLoss(reduction="none", delta=0.7), 2),
        (nn.SmoothL1Loss(reduction="none"), 1),
        (Pinball(), 1),
        (Poisson(), None),
        (Whole(), None),
    ],
)
def test_the_degree_of_a_loss(loss, degree):
    assert adapt_loss(loss, "regression", 2).find_degree() == degree
    assert adapt_loss(loss, "regression", 2, MEAN, SCALE).is_scaled == (degree is not None)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss])
def test_reported_losses_are_those_of_raw_outputs_and_raw_targets(loss, columns):
    torch.manual_seed(0)
    scaled = adapt_loss(
        loss(reduction="none"), "regression", columns, MEAN[:columns], SCALE[:columns]
    )
    raw = adapt_loss(loss(reduction="none"), "regression", columns)
    outputs = torch.randn(30, columns)
    y = torch.randn(30, columns) * 10 + 50
    found = scaled.report_losses(scaled(outputs, y), outputs, y)
    torch.testing.assert_close(found, raw(scaled.decode_outputs(outputs), y))
    assert not torch.allclose(found, scaled(outputs, y))


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """Prices of 3e6 ± 2e6, and the same standardized by hand on the rows that are trained on."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("prices")
    x = draw.normal(size=(300, 4))
    y = 3e6 + 2e6 * (x @ [0.6, -0.5, 0.3, 0.2] + 0.3 * draw.normal(size=300))
    np.savez(folder / "prices.npz", x=x, y=y)
    return folder / "prices.npz"


def test_a_run_in_other_units_is_the_same_run(prices, run, tmp_path):
    source = f"data.source.path={prices}"
    priced = run("data=arrays", source, "loss=mse", *SHORT)
    _, splits = truerisk.build_module(["data=arrays", source, "loss=mse", *SHORT])
    mean, scale = float(splits.train.y.mean()), float(splits.train.y.std(correction=0))
    given = np.load(prices)
    np.savez(tmp_path / "z.npz", x=given["x"], y=(given["y"] - mean) / scale)
    by_hand = run(
        "data=arrays", f"data.source.path={tmp_path}/z.npz", "loss=mse",
        "data.standardize_target=false", *SHORT,
    )  # fmt: skip
    for name in ("risk/train", "risk/val", "risk/test", "risk/gap"):
        assert priced.summary[name].value == pytest.approx(scale**2 * by_hand.summary[name].value)
        assert priced.summary[name].stderr == pytest.approx(scale**2 * by_hand.summary[name].stderr)
    # ... and J, which is minimised, is that of the standardized targets
    objective = {
        r: r.history.query("name == 'objective'").value.to_numpy() for r in (priced, by_hand)
    }
    np.testing.assert_allclose(objective[priced], objective[by_hand])


def test_the_weights_that_come_out_predict_prices(prices, run):
    result = run("data=arrays", f"data.source.path={prices}", "loss=mse", *SHORT)
    given = np.load(prices)
    assert result.summary["risk/test"].value < 0.4 * given["y"].var()
    risk = np.square(result.predict(given["x"]).values[:, 0] - given["y"]).mean()
    again = evaluate(
        result.folder,
        ["data=arrays", f"data.source.path={prices}", "data.test=all"],
    ).summary
    assert again["risk/test"].value == pytest.approx(risk)


def test_what_cannot_be_scaled_is_refused_where_it_is_asked_for(prices):
    with pytest.raises(ConfigError, match=r"set data\.standardize_target=false"):
        truerisk.build_module(["data=iris", "model=linear", "data.standardize_target=true"])
    with pytest.raises(ConfigError, match="give true, false or auto"):
        truerisk.build_module(["data=iris", "model=linear", "data.standardize_target=yes-please"])
