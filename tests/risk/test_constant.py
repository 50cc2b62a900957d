"""The best constant predictor, which every risk is held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)
from torch import nn

import truerisk
from truerisk.core.rng import named_generator
from truerisk.core.seeds import derive_streams
from truerisk.loss import Hinge, adapt_loss
from truerisk.metric import TorchMetric
from truerisk.risk.bayes import constant_losses, fit_constant, mean_error, mean_loss

EACH = {"reduction": "none"}
QUICK = ["model=linear", "trainer.max_epochs=2", "trainer.precision=64-true"]


@pytest.fixture(scope="module")
def skewed():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(101, 2, generator=draw, dtype=torch.float64).exp() * torch.tensor([1.0, 50])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("loss", "strategy", "score"),
    [
        (nn.MSELoss, "mean", mean_squared_error),
        (nn.L1Loss, "median", mean_absolute_error),
    ],
)
def test_of_quantities_it_is_the_mean_or_the_median(skewed, scaled, loss, strategy, score):
    units = (skewed.mean(0).tolist(), skewed.std(0).tolist()) if scaled else ()
    surrogate = adapt_loss(loss(**EACH), "regression", 2, *units)
    best, _ = fit_constant(surrogate, skewed)
    x, y = np.zeros((101, 1)), skewed.numpy()
    known = DummyRegressor(strategy=strategy).fit(x, y)
    np.testing.assert_allclose(
        surrogate.decode_outputs(best)[0].numpy(), known.predict(x)[0], rtol=1e-6
    )
    assert mean_loss(surrogate, best, skewed) == pytest.approx(score(y, known.predict(x)), rel=1e-6)


def test_of_other_losses_it_is_looked_for(skewed):
    y = skewed[:, :1]
    surrogate = adapt_loss(nn.HuberLoss(**EACH, delta=0.3), "regression", 1)
    best, _ = fit_constant(surrogate, y)
    known = minimize_scalar(lambda c: nn.HuberLoss(delta=0.3)(torch.full_like(y, c), y).item())
    assert mean_loss(surrogate, best, y) == pytest.approx(known.fun, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.BCEWithLogitsLoss])
def test_of_classes_it_is_their_shares_and_the_most_frequent(classes, loss):
    y = torch.tensor([0] * 3 + [1] * 9 + [2] * 5 + [3] * 4)[: 12 if classes == 2 else None]
    surrogate = adapt_loss(loss(**EACH), "classification", classes)
    best, fewest = fit_constant(surrogate, y)
    x, labels = np.zeros((len(y), 1)), y.numpy()
    prior = DummyClassifier(strategy="prior").fit(x, labels)
    if loss is nn.CrossEntropyLoss or classes == 2:
        risk = log_loss(labels, prior.predict_proba(x))
        assert mean_loss(surrogate, best, y) == pytest.approx(risk, rel=1e-5)
    else:
        p = prior.predict_proba(x)[0]
        risk = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
        assert mean_loss(surrogate, best, y) == pytest.approx(risk, rel=1e-5)
    majority = DummyClassifier(strategy="most_frequent").fit(x, labels)
    assert mean_error(surrogate, fewest, y) == pytest.approx(1 - majority.score(x, labels))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(**EACH), nn.BCEWithLogitsLoss(**EACH), Hinge()]
)
def test_its_losses_are_those_of_outputs_that_are_all_alike(loss, classes):
    surrogate = adapt_loss(
        loss, "classification", classes, class_weight=[0.3] + [1.7] * (classes - 1)
    )
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (10_007,), generator=draw)
    outputs = torch.randn(1, surrogate.output_size, generator=draw)
    alike = outputs.repeat(len(y), 1)
    each = surrogate.report_losses(surrogate(alike, y), alike, y)
    assert torch.equal(constant_losses(surrogate, outputs, y), each)


def test_of_a_hinge_it_is_a_vertex():
    surrogate = adapt_loss(Hinge(), "classification", 3)
    for counts, risk in (((7, 2, 1), 0.6), ((4, 4, 2), 1.0)):
        y = torch.arange(3).repeat_interleave(torch.tensor(counts))
        assert mean_loss(surrogate, fit_constant(surrogate, y)[0], y) == pytest.approx(risk)


def test_a_run_tells_it_and_the_share_of_the_variance_explained(run):
    result = run("data=diabetes", "loss=mse", "metric=[r2]", *QUICK)
    _, data = truerisk.build_module(["data=diabetes", "loss=mse", *QUICK])
    x, y = data.raw(data.test.x), data.test.y.numpy()
    constant = mean_squared_error(y, np.full_like(y, data.train.y.mean()))
    assert result.summary["constant/risk/test"].value == pytest.approx(constant)
    share = r2_score(y, result.predict(x).values)
    assert result.summary["r2/test"].value == pytest.approx(share)
    # what the metric of that name has, by differentiation
    metric = result.summary["metric/r2/test"]
    assert result.summary["r2/test"].stderr == pytest.approx(metric.stderr, rel=1e-5)
    assert result.summary["r2/train"].stderr == 0
    assert {"constant/risk/val", "r2/test"} <= set(result.history.name)


@pytest.mark.parametrize("more", [[], ["risk.weighted=true"]])
def test_the_end_of_a_run_measures_as_many_training_samples_as_it_is_told(run, more):
    """Those of the epochs, where as many: with the error of a part of the whole."""
    given = ["data=diabetes", "loss=mse", "metric=[r2]", *QUICK, "risk.train_samples=60", *more]
    some, whole = run(*given, "risk.final_train_samples=60"), run(*given)
    _, data = truerisk.build_module(given)
    stream = named_generator(derive_streams(0).data, "measured")
    index = torch.randperm(len(data.train), generator=stream)[:60]
    x, y = data.raw(data.train.x)[index], data.train.y.numpy()[index]
    predicted = some.predict(x).values.reshape(y.shape)
    found = some.summary
    assert found["r2/train"].value == pytest.approx(r2_score(y, predicted))
    # what the metric of that name has, by differentiation
    assert found["r2/train"].stderr == pytest.approx(found["metric/r2/train"].stderr, rel=1e-5)
    losses = (y - predicted) ** 2
    stderr = losses.std(ddof=1) / np.sqrt(60) * np.sqrt(1 - 60 / len(data.train))
    assert found["risk/train"][:2] == pytest.approx((losses.mean(), stderr))
    assert found["risk/gap"].stderr == pytest.approx(np.hypot(stderr, found["risk/val"].stderr))
    constant = np.full_like(y, data.train.y.mean())
    assert found["constant/risk/train"].value == pytest.approx(mean_squared_error(y, constant))
    history = some.history.query("name == 'risk/train'")
    assert (
        found["risk/train"].value == history.value[history.epoch == found["risk/val"].epoch].item()
    )
    # all else is as it was, and so is all of it where there are no more samples
    others = [name for name in found if not name.endswith(("/train", "/gap"))]
    assert {name: found[name] for name in others} == {name: whole.summary[name] for name in others}
    assert run(*given, "risk.final_train_samples=10000").summary == whole.summary


@pytest.mark.parametrize("classes", [2, 3])
def test_a_loss_that_falls_without_end_has_no_best_constant(classes):
    def reversed_sign(o, y):
        return -nn.functional.cross_entropy(o, y, reduction="none")

    y = torch.arange(60) % classes
    assert fit_constant(adapt_loss(reversed_sign, "classification", classes), y) is None

    def log_cosh(o, y):  # it does have one, far from 0 as it may be
        return (o - y).square().add(1).sqrt().mean(1)

    for shift in (0.0, 1e10):
        values = torch.randn(99, 1, dtype=torch.float64) + shift
        best = fit_constant(adapt_loss(log_cosh, "regression", 1), values)
        assert best is not None and float(best[0]) == pytest.approx(shift, abs=1 + 1e-6 * shift)


def test_metrics_have_a_best_constant_too(run):
    asked = "metric=[accuracy,balanced_accuracy,f1,nll,brier,roc_auc,matthews,confusion_matrix]"
    result = run("data=breast_cancer", asked, *QUICK)
    _, data = truerisk.build_module(["data=breast_cancer", *QUICK])
    y, x = data.test.y.numpy(), np.zeros((len(data.test), 1))
    prior = DummyClassifier(strategy="prior").fit(np.zeros((len(data.train), 1)), data.train.y)
    p, predicted = prior.predict_proba(x), prior.predict(x)
    known = {
        "accuracy": accuracy_score(y, predicted),
        "balanced_accuracy": 0.5,
        "f1": f1_score(y, predicted),
        "nll": log_loss(y, p),
        "brier": np.square(p - np.eye(2)[y]).sum(1).mean(),
        "roc_auc": 0.5,
    }
    found = {name: result.summary[f"constant/metric/{name}/test"].value for name in known}
    assert found == pytest.approx(known, rel=1e-5)
    # a correlation with what does not vary is none
    assert not [name for name in result.summary if name.startswith("constant/metric/matthews")]
    assert "constant/metric/accuracy/val" in result.summary


def test_each_metric_of_quantities_has_its_own_best_constant(run):
    result = run("data=diabetes", "loss=mse", "metric=[mae,rmse,r2,spearman]", *QUICK)
    _, data = truerisk.build_module(["data=diabetes", "loss=mse", *QUICK])
    y, train = data.test.y.numpy(), data.train.y.numpy()
    mean, median = np.full_like(y, train.mean()), np.full_like(y, np.median(train))
    found = {m: result.summary[f"constant/metric/{m}/test"].value for m in ("mae", "rmse", "r2")}
    known = {
        "mae": mean_absolute_error(y, median),
        "rmse": mean_squared_error(y, mean) ** 0.5,
        "r2": r2_score(y, mean),
    }
    # of an even number of samples any value between the middle two is a median
    assert found == pytest.approx(known, rel=2e-3)
    assert "constant/metric/spearman/test" not in result.summary


def test_where_all_predictions_are_alike_matthews_correlation_is_zero():
    surrogate = adapt_loss(nn.CrossEntropyLoss(**EACH), "classification", 2)
    metric = TorchMetric("MatthewsCorrCoef").fit_task("matthews", surrogate, 2, None)
    y = torch.tensor([0] * 42 + [1] * 72)
    seen = {"target": y, "predicted": torch.ones_like(y)}
    assert matthews_corrcoef(y, seen["predicted"]) == 0
    assert float(metric.compute_values(seen)) == 0
    # arguments of torchmetrics' own are as it has them
    y = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    f = torch.tensor([0, 2, 1, 1, 0, 2, 2, 1, 0])
    surrogate = adapt_loss(nn.CrossEntropyLoss(**EACH), "classification", 3)
    metric = TorchMetric("MatthewsCorrCoef", {"ignore_index": 0})
    metric = metric.fit_task("matthews", surrogate, 3, None)
    right = matthews_corrcoef(y[2:], f[2:])
    value = float(metric.compute_values({"target": y, "predicted": f}))
    assert value == pytest.approx(right, abs=1e-6)
