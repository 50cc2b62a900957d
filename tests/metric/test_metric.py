"""Metrics against scikit-learn, torchmetrics and closed forms; their errors against simulation."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from truerisk.assemble import build
from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.loss import adapt_loss
from truerisk.metric import Collector, TorchMetric, fit_metrics
from truerisk.metric.functionals import bootstrap_stderr, combine_influences, find_influences

K = 4


def fit(option, surrogate, outputs, *more, names=None):
    cfg = compose(["data=iris", f"metric=[{option}]", *more])
    built = {name: build(node) for name, node in cfg.metric.items()}
    return fit_metrics(built, surrogate, outputs, names)[option]


def classify(outputs):
    return adapt_loss(nn.CrossEntropyLoss(reduction="none"), "classification", outputs)


def measure(metric, surrogate, outputs, y, *, parts=1, thorough=False):
    collector = Collector({"it": metric}, surrogate)
    for o, t in zip(outputs.tensor_split(parts), y.tensor_split(parts), strict=True):
        collector.add(o, t)
    return collector.estimate(thorough)["it"]


def draw_classes(seed, n=200, classes=K):
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=draw)
    outputs = torch.randn(n, classes, generator=draw)
    outputs[torch.arange(n), y] += 1.2
    return outputs, y


def expected(option, p, y):
    """What scikit-learn computes of probabilities [n, K]."""
    predicted, pair = p.argmax(1), p.shape[1] == 2
    average = "binary" if pair else "macro"
    chance = p[:, 1] if pair else p
    values = {
        "accuracy": lambda: sk.accuracy_score(y, predicted),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, predicted),
        "top_k": lambda: sk.top_k_accuracy_score(y, p, k=2),
        "f1": lambda: sk.f1_score(y, predicted, average=average),
        "f1_macro": lambda: sk.f1_score(y, predicted, average="macro"),
        "f1_micro": lambda: sk.f1_score(y, predicted, average="micro"),
        "f1_per_class": lambda: sk.f1_score(y, predicted, average=None),
        "precision": lambda: sk.precision_score(y, predicted, average=average),
        "recall": lambda: sk.recall_score(y, predicted, average=average),
        "roc_auc": lambda: sk.roc_auc_score(y, chance, multi_class="ovr"),
        "average_precision": lambda: sk.average_precision_score(y, chance),
        "matthews": lambda: sk.matthews_corrcoef(y, predicted),
        "kappa": lambda: sk.cohen_kappa_score(y, predicted),
        "nll": lambda: sk.log_loss(y, p),
        "brier": lambda: ((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean(),
    }
    return values[option]()


OPTIONS = ("accuracy", "balanced_accuracy", "top_k", "f1", "f1_macro", "f1_micro", "f1_per_class")
OPTIONS += ("precision", "recall", "roc_auc", "average_precision", "matthews", "kappa", "nll")
OPTIONS += ("brier",)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("classes", [2, K])
def test_metrics_of_classes_are_those_of_scikit_learn(option, classes):
    if option == "top_k" and classes == 2:
        return
    outputs, y = draw_classes(0, classes=classes)
    more = ["metric.top_k.arguments.top_k=2"] if option == "top_k" else []
    metric = fit(option, classify(classes), classes, *more)
    found = measure(metric, classify(classes), outputs, y, parts=3)
    p = outputs.double().softmax(1).numpy()
    right = np.atleast_1d(expected(option, p, y.numpy()))
    assert list(found.values.values()) == pytest.approx(right.tolist(), abs=2e-6)
    # all of them are known as functionals, and so have errors without a bootstrap
    assert all(0 < stderr < 0.2 for stderr in found.stderrs.values())
    assert len(found.stderrs) == len(right)


@pytest.mark.parametrize("option", ["mae", "rmse", "r2", "mape", "spearman"])
@pytest.mark.parametrize("columns", [1, 2])
def test_metrics_of_quantities_are_those_of_scikit_learn_and_scipy(option, columns):
    from scipy import stats

    draw = torch.Generator().manual_seed(1)
    y = torch.randn(150, columns, generator=draw) + 3
    f = y + 0.5 * torch.randn(150, columns, generator=draw)
    loss = adapt_loss(nn.MSELoss(reduction="none"), "regression", columns)
    found = measure(fit(option, loss, columns), loss, f, y, parts=4)
    a, b = y.double().numpy(), f.double().numpy()
    right = {
        "mae": lambda: sk.mean_absolute_error(a, b),
        "rmse": lambda: math.sqrt(sk.mean_squared_error(a, b)),
        "r2": lambda: sk.r2_score(a, b),
        "mape": lambda: sk.mean_absolute_percentage_error(a, b),
        "spearman": lambda: [stats.spearmanr(a[:, k], b[:, k])[0] for k in range(columns)],
    }[option]()
    assert list(found.values.values()) == pytest.approx(np.atleast_1d(right).tolist(), abs=1e-6)
    assert all(0 < stderr < 0.3 for stderr in found.stderrs.values()) and found.stderrs


def test_r2_of_quantities_far_from_zero_is_exact_and_has_its_known_error():
    draw = torch.Generator().manual_seed(5)
    y = torch.randn(150, 1, generator=draw) + 1000
    f = y + torch.randn(150, 1, generator=draw)
    loss = adapt_loss(nn.MSELoss(reduction="none"), "regression", 1)
    found = measure(fit("r2", loss, 1), loss, f, y)
    assert found.values[""] == pytest.approx(sk.r2_score(y.double(), f.double()), abs=1e-9)
    assert 0.05 < found.stderrs[""] < 0.3


def test_perplexity_of_tokens_is_that_of_torchmetrics_and_its_error_counts_sequences():
    from torchmetrics.text import Perplexity

    draw = torch.Generator().manual_seed(2)
    outputs, y = torch.randn(40, 7, 5, generator=draw), torch.randint(5, (40, 7), generator=draw)
    loss = adapt_loss(nn.CrossEntropyLoss(reduction="none"), "next_token", 5)
    found = measure(fit("perplexity", loss, 5), loss, outputs, y, parts=3)
    theirs = Perplexity()
    theirs.update(outputs, y)
    assert found.values[""] == pytest.approx(float(theirs.compute()), rel=1e-5)
    nll = nn.functional.cross_entropy(outputs.transpose(1, 2), y, reduction="none").double().mean(1)
    # delta method: se(exp m) = exp(m) · se(m), with sequences as samples
    assert found.stderrs[""] == pytest.approx(
        float(nll.mean().exp() * nll.std() / math.sqrt(40)), rel=1e-6
    )
    accuracy = measure(fit("accuracy", loss, 5), loss, outputs, y)
    assert accuracy.values[""] == pytest.approx(float((outputs.argmax(-1) == y).float().mean()))


@pytest.mark.parametrize("option", ["accuracy", "f1_macro", "roc_auc", "average_precision"])
def test_metrics_of_labels(option):
    draw = torch.Generator().manual_seed(3)
    y = torch.randint(2, (120, 3), generator=draw).float()
    outputs = y + 1.5 * torch.randn(120, 3, generator=draw)
    loss = adapt_loss(nn.BCEWithLogitsLoss(reduction="none"), "multilabel", 3)
    found = measure(fit(option, loss, 3), loss, outputs, y, parts=2)
    truth, p = y.numpy().astype(int), outputs.sigmoid().numpy()
    right = {
        "accuracy": lambda: ((p > 0.5) == truth).mean(),
        "f1_macro": lambda: sk.f1_score(truth, p > 0.5, average="macro"),
        "roc_auc": lambda: sk.roc_auc_score(truth, p, average="macro"),
        "average_precision": lambda: sk.average_precision_score(truth, p, average="macro"),
    }[option]()
    assert found.values[""] == pytest.approx(right, abs=1e-6) and found.stderrs[""] > 0


def test_calibration_error_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    y = torch.tensor([0, 1, 1, 0])
    # two bins of [0, 1]: all confidences lie in the upper one
    metric = fit("calibration_error", classify(2), 2, "metric.calibration_error.arguments.n_bins=2")
    found = measure(metric, classify(2), p.log(), y)
    assert found.values[""] == pytest.approx(abs(0.5 - (0.9 + 0.8 + 0.7 + 0.55) / 4), abs=1e-6)


# --- standard errors ------------------------------------------------------------------------------


def test_influences_are_those_of_leaving_a_sample_out():
    outputs, y = draw_classes(4)
    for option in ("f1_macro", "average_precision"):
        metric = fit(option, classify(K), K)
        found = measure(metric, classify(K), outputs, y)
        without = []
        for i in range(len(y)):
            rest = torch.arange(len(y)) != i
            without.append(measure(metric, classify(K), outputs[rest], y[rest]).values[""])
        n, spread = len(y), np.array(without)
        jackknife = math.sqrt((n - 1) / n * ((spread - spread.mean()) ** 2).sum())
        assert found.stderrs[""] == pytest.approx(jackknife, rel=0.06), option


def test_the_error_of_a_mean_is_s_over_root_n_and_clusters_add_up():
    x = torch.randn(60, generator=torch.Generator().manual_seed(5)).double()
    values, influences = find_influences(lambda w: (w * x).sum() / w.sum(), 60)
    assert float(values[0]) == pytest.approx(float(x.mean()))
    assert float(combine_influences(influences)) == pytest.approx(float(x.std()) / math.sqrt(60))
    # five equal copies of each of 12 samples hold what 12 samples hold
    few, groups = x[:12], torch.arange(12).repeat_interleave(5)
    copies = few.repeat_interleave(5)
    _, influences = find_influences(lambda w: (w * copies).sum() / w.sum(), 60)
    clustered = float(combine_influences(influences, groups))
    assert clustered == pytest.approx(float(few.std()) / math.sqrt(12))
    drawn = bootstrap_stderr(lambda index: copies[index].mean(), 60, groups)
    assert float(drawn) == pytest.approx(clustered, rel=0.15)


def test_a_metric_without_a_known_influence_is_bootstrapped_at_the_end_alone():
    outputs, y = draw_classes(6)
    metric = fit("torchmetrics", classify(K), K, "metric.torchmetrics.metric=JaccardIndex")
    during = measure(metric, classify(K), outputs, y)
    after = measure(metric, classify(K), outputs, y, thorough=True)
    assert during.stderrs == {} and during.values == after.values
    right = sk.jaccard_score(y.numpy(), outputs.argmax(1).numpy(), average="macro")
    assert after.values[""] == pytest.approx(right)
    assert 0.015 < after.stderrs[""] < 0.05


def test_arguments_that_the_functional_does_not_know_are_bootstrapped_too():
    outputs, y = draw_classes(7)
    arguments = "+metric.torchmetrics.arguments={ignore_index: 0, average: macro}"
    metric = fit("torchmetrics", classify(K), K, "metric.torchmetrics.metric=F1Score", arguments)
    assert measure(metric, classify(K), outputs, y).stderrs == {}


CLASSES = torch.tensor([0.5, 0.3, 0.2])


def draw_population(n, draw):
    y = torch.multinomial(CLASSES, n, replacement=True, generator=draw)
    outputs = torch.randn(n, 3, generator=draw)
    outputs[torch.arange(n), y] += 1.5
    return outputs, y


def draw_quantities(n, draw):
    y = torch.randn(n, 1, generator=draw) * 2 + 5
    return y + torch.randn(n, 1, generator=draw) * (0.7 + 0.1 * (y - 5).abs()), y


COVERED = ("accuracy", "balanced_accuracy", "f1_macro", "precision", "recall", "roc_auc")
COVERED += ("average_precision", "matthews", "kappa", "brier", "nll")


@pytest.mark.parametrize("option", [*COVERED, "mae", "rmse", "r2", "spearman"])
def test_intervals_of_200_samples_hold_the_true_value(option):
    """Of 300 draws 95 % ± 1.3 % hold it; below 91 % or above 98.5 % the error is wrong."""
    draw, runs = torch.Generator().manual_seed(8), 300
    quantities = option not in COVERED
    sample = draw_quantities if quantities else draw_population
    loss = classify(3)
    if quantities:
        loss = adapt_loss(nn.MSELoss(reduction="none"), "regression", 1)
    metric = fit(option, loss, 1 if quantities else 3)
    truth = measure(metric, loss, *sample(100_000, draw)).values[""]
    held = 0
    for _ in range(runs):
        found = measure(metric, loss, *sample(200, draw))
        held += abs(found.values[""] - truth) < 1.972 * found.stderrs[""]
    assert 0.91 <= held / runs <= 0.985


# --- what does not fit ----------------------------------------------------------------------------

MSE = adapt_loss(nn.MSELoss(reduction="none"), "regression", 1)
HINGE = adapt_loss(nn.MultiMarginLoss(reduction="none"), "classification", 3)
NAMED = "metric.torchmetrics.metric="


@pytest.mark.parametrize(
    ("option", "surrogate", "outputs", "more", "message"),
    [
        ("f1", MSE, 1, [], "metric.f1: MulticlassF1Score is for classes, and the data has quant"),
        (
            "r2",
            classify(3),
            3,
            [],
            "R2Score is for quantities, and the data has 3 classes",
        ),
        ("roc_auc", HINGE, 3, [], "metric.roc_auc needs probabilities"),
        ("nll", MSE, 1, [], "metric.nll needs probabilities, which a regression"),
        ("confusion_matrix", MSE, 1, [], "metric.confusion_matrix counts classes"),
        ("torchmetrics", classify(3), 3, [f"{NAMED}AUROCC"], "did you mean 'AUROC'"),
        ("torchmetrics", classify(3), 3, [f"{NAMED}BinaryF1Score"], "is for two classes"),
        ("torchmetrics", classify(3), 3, [f"{NAMED}ROC"], "gives a curve or a table"),
        ("f1", classify(3), 3, ["metric.f1.arguments.average=makro"], "average.*makro"),
        ("f1", classify(3), 3, ["metric.f1.arguments.average=binary"], "is for two classes"),
        ("f1", classify(3), 3, ["+metric.f1.arguments.betta=2"], "betta"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(option, surrogate, outputs, more, message):
    with pytest.raises(ConfigError, match=message):
        fit(option, surrogate, outputs, *more)


def test_torchmetrics_objects_are_wrapped():
    from torchmetrics.classification import MulticlassFBetaScore

    outputs, y = draw_classes(9)
    own = MulticlassFBetaScore(beta=2.0, num_classes=K)
    metric = fit_metrics({"f2": own}, classify(K), K, None)["f2"]
    found = measure(metric, classify(K), outputs, y, parts=2)
    right = sk.fbeta_score(y.numpy(), outputs.argmax(1).numpy(), beta=2, average="macro")
    assert found.values[""] == pytest.approx(right, abs=1e-6)
    with pytest.raises(ConfigError, match=r"neither a truerisk\.metric\.Metric nor"):
        fit_metrics({"f2": SimpleNamespace()}, classify(K), K, None)


def test_a_metric_of_outputs_that_are_no_numbers_is_none():
    outputs, y = draw_classes(10)
    outputs[3, 0] = math.nan
    metric = TorchMetric("AUROC").fit_task("roc_auc", classify(K), K, None)
    assert math.isnan(measure(metric, classify(K), outputs, y).values[""])
