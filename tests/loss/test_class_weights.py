"""Weights of classes: in what training lowers, and in no risk that is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from truerisk.core.errors import ConfigError
from truerisk.loss import Hinge, adapt_loss, read_class_weights

EACH = {"reduction": "none"}
INFO = SimpleNamespace(
    task="classification", num_outputs=3, class_names=["a", "b", "c"], class_counts=[50, 30, 20]
)
RARE = ["data=gaussians", "data.source.prior=[0.9,0.1]", "data.source.num_samples=400",
        "model=linear", "trainer.max_epochs=2", "trainer.precision=64-true",
        "risk.true_samples=10000"]  # fmt: skip


def test_balanced_weights_are_scikit_learns():
    y = torch.arange(3).repeat_interleave(torch.tensor(INFO.class_counts)).numpy()
    known = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert read_class_weights("balanced", INFO) == pytest.approx(known)


@pytest.mark.parametrize(
    ("weight", "word"),
    [
        ("balance", "give balanced"),
        ([1, 2], "2 numbers, and there are 3 classes: a, b, c"),
        ({"d": 2}, "no class 'd'"),
        ([1, 2, -1], "at least 0"),
        ([0, 0, 0], "not all of them 0"),
        ([1, 2, "x"], "give numbers"),
    ],
)
def test_what_is_no_weight_is_refused(weight, word):
    with pytest.raises(ConfigError, match=word):
        read_class_weights(weight, INFO)
    with pytest.raises(ConfigError, match=r"data\.source\.weight"):
        info = SimpleNamespace(task="regression", num_outputs=1, class_names=None)
        read_class_weights([1.0], info)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(**EACH), nn.BCEWithLogitsLoss(**EACH), Hinge()]
)
def test_losses_are_multiplied_and_reported_without(loss, classes):
    torch.manual_seed(0)
    weight = [1.0, 5.0, 0.0][:classes]
    plain = adapt_loss(loss, "classification", classes)
    weighted = adapt_loss(loss, "classification", classes, class_weight=weight)
    y = torch.randint(0, classes, (20,))
    outputs = torch.randn(20, plain.output_size)
    losses = weighted(outputs, y)
    torch.testing.assert_close(losses, torch.tensor(weight)[y] * plain(outputs, y))
    assert torch.equal(weighted.report_losses(losses, outputs, y), plain(outputs, y))
    if isinstance(loss, nn.CrossEntropyLoss):
        known = F.cross_entropy(outputs, y, torch.tensor(weight), reduction="none")
        torch.testing.assert_close(losses, known)


def test_positives_that_count_more_are_not_reported_either():
    outputs, y = torch.randn(20, 1), torch.randint(0, 2, (20,))
    loss = nn.BCEWithLogitsLoss(**EACH, pos_weight=torch.tensor([7.0]))
    weighted = adapt_loss(loss, "classification", 2)
    plain = adapt_loss(nn.BCEWithLogitsLoss(**EACH), "classification", 2)
    assert torch.equal(weighted.report_losses(weighted(outputs, y), outputs, y), plain(outputs, y))
    assert torch.equal(loss.pos_weight, torch.tensor([7.0]))


def test_a_run_lowers_the_weighted_risk_and_tells_the_other(run):
    import truerisk

    recipe = [*RARE, "loss.weight=balanced", "loss=bce", "risk.train_samples=240"]
    result = run(*recipe)
    _, data = truerisk.build_module(recipe)
    data.prepare()
    x, y = data.train.x.double(), data.train.y
    with torch.no_grad():
        outputs = result.network(x)[:, 0]
    each = F.binary_cross_entropy_with_logits(outputs, y.double(), reduction="none")
    assert result.summary["risk/train"].value == pytest.approx(float(each.mean()))
    curves = result.history[result.history.epoch == 2].set_index("name").value
    weight = (len(y) / (2 * torch.bincount(y)))[y]
    assert curves["objective"] == pytest.approx(float((weight * each).mean()))
    assert curves["objective"] != pytest.approx(curves["risk/train"])
    # what the Bayes risk is held against is no weighted risk
    assert result.summary["risk/bayes"].value < result.summary["risk/true"].value


def test_rare_classes_are_told_before_the_first_step(run, capsys):
    run(*RARE)
    told = capsys.readouterr()
    assert "classes of the training split: 0 212 (88 %), 1 28 (12 %)" in told.out + told.err
