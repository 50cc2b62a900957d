"""Losses of ordered classes, counts and quantiles, and losses that compare each with each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_pinball_loss
from torch import nn

import truerisk
from truerisk.cli import main
from truerisk.core.errors import ConfigError
from truerisk.loss import Ordinal, Poisson, Quantile, adapt_loss
from truerisk.risk.bayes import fit_constant, mean_loss


def test_counts_against_scipy():
    torch.manual_seed(0)
    f, y = torch.randn(50, 2, dtype=torch.float64), torch.randint(0, 9, (50, 2)).double()
    expected = -stats.poisson.logpmf(y.numpy(), f.exp().numpy())
    np.testing.assert_allclose(Poisson()(f, y).numpy(), expected, rtol=1e-12)
    fitted = adapt_loss(Poisson(), "regression", 2)
    best, _ = fit_constant(fitted, y)
    torch.testing.assert_close(best.double(), y.mean(0, keepdim=True).log(), rtol=1e-6, atol=1e-6)
    assert fitted.task.read_predictions(fitted, f, None).equal(f.exp())


def test_quantiles_against_sklearn():
    torch.manual_seed(0)
    levels = [0.1, 0.5, 0.75]
    f, y = torch.randn(60, 6, dtype=torch.float64), torch.randn(60, 2, dtype=torch.float64)
    losses = Quantile(levels)(f, y)
    for k in range(2):
        own = [
            mean_pinball_loss(y[:, k], f[:, 3 * k + j], alpha=tau) for j, tau in enumerate(levels)
        ]
        assert float(losses[:, k].mean()) == pytest.approx(np.mean(own), rel=1e-6)
    fitted = adapt_loss(Quantile(levels), "regression", 2)
    best, _ = fit_constant(fitted, y)
    expected = np.quantile(y.numpy(), levels, axis=0).T.reshape(1, -1)
    np.testing.assert_allclose(best.numpy(), expected, rtol=1e-5)
    # no constant is better
    nearby = [mean_loss(fitted, best + d * torch.randn(1, 6), y) for d in (0.01, 0.1, 1)]
    assert mean_loss(fitted, best, y) < min(nearby)


def test_ordered_classes_are_a_distribution_and_go_both_ways():
    torch.manual_seed(0)
    f, loss = torch.randn(40, 3, dtype=torch.float64), Ordinal()
    p = loss.log_probabilities(f).exp()
    # by hand, class after class
    s = f.sigmoid()
    by_hand = [1 - s[:, 0], s[:, 0] * (1 - s[:, 1]), s[:, 0] * s[:, 1] * (1 - s[:, 2]), s.prod(1)]
    torch.testing.assert_close(p, torch.stack(by_hand, 1))
    torch.testing.assert_close(loss.encode_probabilities(p), f)
    y = torch.randint(0, 4, (40,))
    torch.testing.assert_close(loss(f, y), -p.gather(1, y[:, None])[:, 0].log())
    fitted = adapt_loss(loss, "classification", 4)
    assert fitted.output_size == 3
    torch.testing.assert_close(fitted.task.read_probabilities(fitted, f), p)
    assert fitted.compute_errors(f, y).equal((p.argmax(1) != y).to(torch.get_default_dtype()))
    best, fewest = fit_constant(fitted, y)
    shares = torch.bincount(y, minlength=4).double() / 40
    entropy = -(shares * shares.log()).sum()
    assert mean_loss(fitted, best, y) == pytest.approx(float(entropy), rel=1e-6)
    wrong = fitted.compute_errors(fewest.expand(40, 3), y).mean()
    assert float(wrong) == pytest.approx(1 - float(shares.max()))
    two = adapt_loss(loss, "classification", 2)
    assert two.compute_errors(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1])).tolist() == [
        0,
        1,
    ]


@pytest.mark.parametrize("levels", [[], [0.0], [1.0], [0.5, 2], ["a"]])
def test_levels_are_shares(levels):
    with pytest.raises(ConfigError, match=r"loss\.levels is .*shares above 0 and below 1"):
        Quantile(levels)


def flat(outputs, y):
    return (outputs.squeeze(-1) - y) ** 2


def pinball(outputs, y):
    error = y - outputs
    return torch.maximum(torch.tensor([0.1, 0.9]) * error, torch.tensor([-0.9, -0.1]) * error)


@pytest.mark.parametrize("loss", [flat, pinball])
def test_a_loss_that_broadcasts_is_refused(loss):
    with pytest.raises(ConfigError, match="an output is broadcast against more targets"):
        adapt_loss(loss, "regression", 1)


@pytest.mark.parametrize("shape", [(5,), (5, 2)])
def test_outputs_of_another_shape_are_refused_on_the_first_batch(shape):
    for loss in (nn.MSELoss(reduction="none"), Quantile([0.1, 0.5, 0.9])):
        fitted = adapt_loss(loss, "regression", 1)
        with pytest.raises(
            ConfigError, match=r"the model's outputs have shape .* needs [13] a sam"
        ):
            fitted(torch.zeros(shape), torch.zeros(5, 1))
    with pytest.raises(ConfigError, match="needs as many outputs a target, 3 a sample, and got 1"):
        Quantile([0.1, 0.5, 0.9])(torch.zeros(5, 1), torch.zeros(5, 1))


# --- from a table to a summary --------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    """A table of one feature, and counts, ratings in numbers and words that follow from it."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=600)
    count, rating = (
        draw.poisson(np.exp(0.5 + 0.8 * x)),
        np.digitize(x + 0.3 * draw.normal(size=600), [-1, 0, 1]),
    )
    words = np.array(["poor", "fair", "good", "best"])[rating]
    frame = pd.DataFrame({"x": x, "count": count, "rating": rating, "word": words})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path, frame


def train(write, target, *overrides):
    folder, _ = write
    source = ["data=table", f"data.source.path={folder}/t.csv", "data.source.columns=[x]"]
    options = ["model=linear", "trainer.max_epochs=60", "optimizer.lr=0.03", "figures=false"]
    return truerisk.train(
        [*source, f"data.source.target={target}", *options, *overrides], folder=folder / "run"
    )


pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")


def test_counts_are_learned_as_sklearn_does(write):
    run = train(write, "count", "loss=poisson", "data.standardize=none")
    assert run.task == "regression"
    x, y = write[1][["x"]].to_numpy(), write[1]["count"].to_numpy()
    peer = PoissonRegressor(alpha=0, tol=1e-8).fit(x, y)
    weights = [p.item() for p in run.network.parameters()]
    assert weights[0] == pytest.approx(peer.coef_[0], abs=0.1)
    assert weights[1] == pytest.approx(peer.intercept_, abs=0.1)
    rates = run.predict(x[:5]).values[:, 0]
    np.testing.assert_allclose(rates, np.exp(weights[0] * x[:5, 0] + weights[1]), rtol=1e-4)
    assert run.summary["risk/test"].value < run.summary["constant/risk/test"].value


def test_quantiles_are_learned_in_the_units_of_the_target(write):
    run = train(write, "count", "loss=quantile", "loss.levels=[0.1,0.9]", "model=mlp")
    found = run.predict(write[1][["x"]].to_numpy()).values
    shares = (write[1][["count"]].to_numpy() <= found).mean(0)
    assert found.shape == (600, 2) and shares == pytest.approx([0.1, 0.9], abs=0.12)


def test_ordered_classes_take_the_order_of_their_numbers_or_a_list(write):
    run = train(write, "rating", "loss=ordinal")
    assert run.task == "classification" and run.summary["error/test"].value < 0.45
    assert run.predict([[-3.0], [3.0]]).values.tolist() == [0, 3]
    (write[0] / "run").rename(write[0] / "first")
    with pytest.raises(ConfigError, match="needs classes in their order, and 'best' has none"):
        train(write, "word", "loss=ordinal")
    order = "data.source.classes=[poor,fair,good,best]"
    named = train(write, "word", "loss=ordinal", order)
    assert named.summary["risk/test"].value == pytest.approx(run.summary["risk/test"].value)
    assert named.predict([[-3.0], [3.0]]).values.tolist() == ["poor", "best"]


@pytest.mark.parametrize(
    ("target", "overrides", "message"),
    [
        ("x", ["loss=poisson"], "loss=poisson is for counts, and .* targets are below 0"),
        (
            "rating",
            ["loss=ordinal", "regularizer=entropy"],
            "regularizer=entropy reads a score a cl",
        ),
        (
            "word",
            ["loss=poisson"],
            "loss=poisson is for regression, but the data's task is classif",
        ),
    ],
)
def test_targets_that_the_loss_is_not_for(write, target, overrides, message):
    with pytest.raises(ConfigError, match=message):
        columns = ["data.source.columns=[count]"] if target == "x" else []
        train(write, target, *overrides, *columns)


@pytest.mark.parametrize(("target", "loss"), [("rating", "ordinal"), ("count", "quantile")])
def test_a_stack_learns_what_each_run_does_alone(write, monkeypatch, target, loss):
    folder, _ = write
    monkeypatch.chdir(folder)
    options = ["data=table", "data.source.path=t.csv", "data.source.columns=[x]", "model=linear"]
    options += [f"data.source.target={target}", f"loss={loss}", "trainer.max_epochs=3"]
    sweep = ["hydra/launcher=vectorized", "seed=1,2", "report=false", "figures=false", "study=s"]
    assert main(["train", "-m", *options, *sweep]) == 0
    alone = truerisk.train([*options, "seed=2", "figures=false"], folder=folder / "alone")
    runs = [truerisk.load_run(path.parent) for path in folder.glob("outputs/s/*/summary.json")]
    (stacked,) = [run for run in runs if run.config.seed.base == 2]
    for name in ("risk/test", "risk/val", "constant/risk/test"):
        assert stacked.summary[name].value == pytest.approx(alone.summary[name].value, rel=1e-5)
