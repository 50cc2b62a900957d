"""Metrics from the command line to a run's folder, alone and stacked; and what a run follows."""

from __future__ import annotations

import json

import pytest

import truerisk
from truerisk.config.compose import compose, resolve_config
from truerisk.core.errors import ConfigError
from truerisk.evaluate import evaluate
from truerisk.sweeps.sweep_cell import hash_config

pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = "metric=[roc_auc,f1_per_class,nll,confusion_matrix]"


@pytest.fixture
def metric_run(tiny, tmp_path):
    return tiny(
        tmp_path / "run",
        [METRICS, "monitor=metric/roc_auc/val", "trainer.max_epochs=20", "optimizer.lr=0.02"],
    )


def test_metrics_are_measured_as_risks_are(metric_run):
    summary, history = metric_run.summary, metric_run.history
    for split in ("train", "val", "test"):
        # cross-entropy without smoothing is this very number, and so is its error
        assert summary[f"metric/nll/{split}"].value == pytest.approx(
            summary[f"risk/{split}"].value, rel=1e-6
        )
        assert summary[f"metric/nll/{split}"].stderr == pytest.approx(
            summary[f"risk/{split}"].stderr, rel=1e-6
        )
        assert f"metric/f1_per_class/virginica/{split}" in summary
    curve = history[(history.name == "metric/roc_auc/val") & history.epoch.notna()]
    assert curve.epoch.tolist()[:21] == list(range(21))
    assert "metric/roc_auc/val/stderr" in set(history.name)
    tables = json.loads((metric_run.folder / "tables.json").read_text())
    test = tables["confusion_matrix"]["test"]
    wrong = sum(map(sum, test)) - sum(test[k][k] for k in range(3))
    assert wrong / sum(map(sum, test)) == pytest.approx(summary["error/test"].value)


def test_the_best_weights_are_those_of_what_is_followed(metric_run):
    history = metric_run.history
    curve = history[history.name == "metric/roc_auc/val"].drop_duplicates("epoch")
    best = int(curve.epoch.iloc[int(curve.value.argmax())])
    assert metric_run.summary["risk/val"].epoch == best
    assert metric_run.summary["metric/roc_auc/val"].value == curve.value.max()
    risks = history[history.name == "risk/val"].drop_duplicates("epoch")
    assert int(risks.epoch.iloc[int(risks.value.argmin())]) != best


def test_evaluate_measures_metrics_that_the_run_did_not(metric_run):
    again = evaluate(metric_run.folder, ["metric=[accuracy,nll]"]).summary
    assert again["metric/accuracy/test"].value == pytest.approx(1 - again["error/test"].value)
    same = evaluate(metric_run.folder).summary
    assert same["metric/roc_auc/test"].value == metric_run.summary["metric/roc_auc/test"].value


def test_early_stopping_and_plateau_follow_too(tiny, tmp_path):
    follow = [METRICS, "monitor=metric/roc_auc/val", "regularizer=[early_stopping]"]
    follow += ["regularizer.early_stopping.patience=2", "scheduler=plateau", "scheduler.patience=0"]
    run = tiny(tmp_path / "run", [*follow, "trainer.max_epochs=40", "optimizer.lr=0.003"])
    history = run.history
    curve = history[history.name == "metric/roc_auc/val"].drop_duplicates("epoch").value.tolist()
    best = curve.index(max(curve))
    assert len(curve) < 41 and len(curve) - 1 - best == 2
    rate = history[history.name == "lr/0"].value
    assert rate.iloc[-1] == pytest.approx(3e-5)  # two measurements without a gain, of a tenth each


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("metric/roc_auc/vall", "did you mean 'metric/roc_auc/val'"),
        ("metric/f1/val", "is not measured"),
        ("risk/test", "monitor=risk/test is not measured"),
    ],
)
def test_what_is_not_measured_is_not_followed(tiny, tmp_path, monitor, message):
    with pytest.raises(ConfigError, match=message):
        tiny(tmp_path / "run", [METRICS, f"monitor={monitor}"])


def test_hashes_of_cells_without_metrics_are_those_of_earlier_versions():
    config = resolve_config(compose(["data=iris"]))
    assert {"metric", "monitor"} <= config.keys()
    earlier = {key: node for key, node in config.items() if key not in ("metric", "monitor")}
    assert hash_config(config) == hash_config(earlier)
    for more in (["metric=[nll]"], ["metric=[nll]", "monitor=metric/nll/val"]):
        other = resolve_config(compose(["data=iris", *more]))
        assert hash_config(other) != hash_config(config)
    stopping = resolve_config(compose(["regularizer=[early_stopping]"]))
    # as the key stood there before it followed `monitor`
    assert stopping["regularizer"]["early_stopping"]["monitor"] == "risk/val"


def test_a_trainer_of_ones_own_logs_metrics(tmp_path):
    import lightning as L

    module, data = truerisk.build_module(["data=iris", METRICS, "monitor=metric/roc_auc/val"])
    trainer = L.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    logged = trainer.callback_metrics
    assert float(logged["metric/nll/val"]) == pytest.approx(float(logged["risk/val"]), rel=1e-5)
    assert "metric/roc_auc/train" in logged and "metric/f1_per_class/setosa/val" in logged
    trainer.test(module, datamodule=data, verbose=False)
    assert "metric/roc_auc/test" in trainer.callback_metrics


def test_optuna_and_lines_of_a_sweep_go_by_what_is_followed(tmp_path, monkeypatch, undrawn, capfd):
    optuna = pytest.importorskip("optuna")
    from truerisk.cli import main

    monkeypatch.chdir(tmp_path)
    args = ["train", "-m", "data=iris", "data.batch_size=30", "model.width=4", "study=s"]
    args += ["trainer.max_epochs=2", "metric=[roc_auc]", "monitor=metric/roc_auc/val", "seed=0"]
    args += ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "report=false"]
    assert main([*args, "optimizer.lr=tag(log,interval(1e-3,1e-1))"]) == 0
    said = capfd.readouterr().out
    runs = [truerisk.load_run(p.parent) for p in (tmp_path / "outputs" / "s").glob("*/config.yaml")]
    values = sorted(run.summary["metric/roc_auc/val"].value for run in runs)
    assert all(f"metric/roc_auc/val {value:.4g}" in said for value in values)
    storage = f"sqlite:///{tmp_path}/outputs/s/optuna.db"
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    # an area is shown as it is, and the highest is the best
    assert study.direction.name == "MAXIMIZE" and study.best_value == values[-1] > 0
    found = [trial.value for trial in study.trials]
    assert sorted(found) == values
    assert found == [max(trial.intermediate_values.values()) for trial in study.trials]


def test_a_confusion_matrix_is_drawn(tmp_path, monkeypatch):
    from truerisk.show import figure

    drawn = []
    monkeypatch.setattr(figure, "save_png", lambda picture, path: drawn.append((picture, path)))
    tables = {"val": [[3, 0], [1, 2]], "test": [[5, 1], [0, 0]]}
    figure.matrix_figure(tables, ["cat", "a long name of a class"], tmp_path / "m.png", "run")
    picture, path = drawn[0]
    (axes,) = picture.axes
    assert [text.get_text() for text in axes.texts] == ["5", "1", "0", "0"]
    assert axes.images[0].get_array().tolist() == [[5 / 6, 1 / 6], [0, 0]]
    assert path.name == "m.png" and axes.get_ylabel() == "true"
