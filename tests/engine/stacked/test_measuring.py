"""Metrics of stacked runs, and what such runs follow."""

from __future__ import annotations

import numpy as np
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


@pytest.fixture
def documents(tmp_path):
    """Texts of uneven length, of one letter each or of six, which lie across sequences."""
    draw, folder = np.random.default_rng(0), tmp_path / "texts"
    folder.mkdir()
    for k in range(24):
        letters = draw.choice(list("abcdefgh"), size=1 + 5 * (k % 2), replace=False)
        words = draw.choice(letters, size=int(draw.integers(20, 90)))
        (folder / f"{k}.txt").write_text("".join(words))
    return folder


@pytest.fixture
def patients(tmp_path):
    """Four samples of each of thirty patients, with what they have in common."""
    draw, patient = np.random.default_rng(0), np.repeat(np.arange(30), 4)
    x, y = np.repeat(draw.normal(size=(30, 2)), 4, 0), np.repeat(draw.normal(size=30), 4)
    y = y + 0.1 * draw.normal(size=120)
    np.savez(tmp_path / "p.npz", x=x, y=y, patient=patient)
    return tmp_path / "p.npz"


@pytest.mark.parametrize("kind", ["texts", "texts, one document a sequence", "patients", "folds"])
def test_errors_of_stacked_runs_are_clustered_as_those_of_single_ones(
    kind, stack, run, distance, documents, patients
):
    common = ["trainer.max_epochs=2", "trainer.precision=64-true", "data.batch_size=16"]
    if "texts" in kind:
        common += ["data=text", f"data.source.path={documents}", "data.source.context=16"]
        common += ["model=gpt", "model.width=8", "model.depth=1", "model.heads=2", "seed.data=0"]
        common += ["metric=[perplexity,bits_per_byte]"]
        common += ["model.within_documents=true"] if "one" in kind else []
    else:
        common += ["data=arrays", f"data.source.path={patients}", "model=linear", "loss=mse"]
        common += ["data.split=group:patient", "metric=[rmse]"]
        common += ["data.folds=3"] if kind == "folds" else []
    recipes = [[*common, f"seed={s}", f"optimizer.lr={lr}"] for s, lr in ((0, 0.01), (1, 0.03))]
    for ours, recipe in zip(stack(*recipes), recipes, strict=True):
        theirs = run(*recipe)
        assert distance(ours, theirs).records < 1e-10
        assert ours.run.status()["together"] == 2
        for name in ("risk/val", "risk/test"):
            mine, other = ours.summary[name], theirs.summary[name]
            assert mine.size == other.size < 40  # documents or patients
            assert mine.stderr == pytest.approx(other.stderr, rel=1e-10)
        for name, losses in theirs.run.losses().items():
            np.testing.assert_allclose(ours.run.losses()[name], losses, rtol=1e-10)
