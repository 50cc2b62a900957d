"""Metrics of stacked runs, and what such runs follow."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = "metric=[roc_auc,f1_per_class,nll,torchmetrics,confusion_matrix]"


def test_stacked_runs_measure_and_follow_as_single_ones(stack, run, distance):
    common = ["data=iris", "data.batch_size=30", "model.width=6", "trainer.max_epochs=5"]
    common += [METRICS, "monitor=metric/roc_auc/val"]
    common += ["metric.torchmetrics.metric=JaccardIndex", "trainer.precision=64-true"]
    recipes = [[*common, f"seed={s}", f"optimizer.lr={lr}"] for s, lr in ((0, 0.01), (1, 0.03))]
    for ours, recipe in zip(stack(*recipes), recipes, strict=True):
        theirs = run(*recipe)
        assert distance(ours, theirs).records < 1e-10
        assert ours.summary["risk/val"].epoch == theirs.summary["risk/val"].epoch
        assert ours.run.tables() == theirs.run.tables() != {}
        assert ours.summary["metric/torchmetrics/test"].stderr > 0
