"""At the end each tracker holds what summary.json holds, as its own reader has it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import truerisk
from truerisk.cli import main

RECIPE = [
    *("data=iris", "model.width=64", "optimizer.lr=0.1", "trainer.max_epochs=15", "seed=3"),
    *("regularizer=[]", "figures=true", "logger=[wandb,tensorboard,mlflow]"),
    *("logger.wandb.mode=offline", "logger.wandb.tags=[mine]", "logger.wandb.notes=a word"),
    *("logger.wandb.artifact=true", "logger.mlflow.artifacts=true"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose validation risk is lowest before its end."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = truerisk.train(
            RECIPE, folder=home / "study" / "optimizer.lr=0.1,seed=3-0123456789"
        )
    curve = result.history[result.history.name == "risk/val"].value
    assert curve.iloc[-1] > 1.5 * curve.min() == pytest.approx(1.5 * curve.min())
    return result


def expected(run):
    values = {name: m.value for name, m in run.summary.items()}
    return values | {
        f"{k}/stderr": m.stderr for k, m in run.summary.items() if m.stderr is not None
    }


def inspect(run, kind):
    (part,) = (run.folder / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", part]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    return [r[kind] for r in map(json.loads, shown.splitlines()) if r["type"] == kind]


def test_wandb(run):
    held = {}
    for record in inspect(run, "summary"):
        held |= record["update"]
    assert {name: held[name] for name in expected(run)} == expected(run)
    assert held["epoch"] == run.summary["risk/val"].epoch and held["status"] == "finished"
    assert "objective" not in held and "batch/loss" not in held
    (told,) = inspect(run, "run")
    assert (told["run_group"], told["notes"]) == ("study", "a word")
    assert told["job_type"] == "iris-mlp-adam optimizer.lr=0.1"
    assert told["tags"] == ["iris", "mlp", "adam", "seed=3", "mine"]
    config = told["config"]["update"]
    assert (config["optimizer"]["lr"], config["choices"]["data"]) == (0.1, "iris")
    metrics = {m.get("glob_name") or m.get("name"): m for m in inspect(run, "metric")}
    assert metrics["risk/*"]["step_metric"] == "epoch"
    assert metrics["objective"]["summary"] == {"none": True}
    (weights,) = (a for a in inspect(run, "artifact") if a["type"] == "model")
    assert {file["path"] for file in weights["manifest"]["contents"]} >= {"best.ckpt"}
    (table,) = run.folder.rglob("wandb/offline-run-*/files/media/table/*.json")
    (figure,) = run.folder.rglob("wandb/offline-run-*/files/media/images/figures/risk_*.png")
    assert figure.read_bytes() == run.figure.read_bytes()
    rows = {row[0]: row[1:] for row in json.loads(table.read_text())["data"]}
    assert rows["risk/test"] == list(run.summary["risk/test"])


def test_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    for name, value in expected(run).items():
        (point,) = events.Scalars(f"summary/{name}")
        assert (point.step, point.value) == (run.summary["risk/val"].epoch, pytest.approx(value))
    (text,) = events.Tensors("config/text_summary")
    (shown,) = text.tensor_proto.string_val
    assert shown.startswith(b"```json\n{") and b"\\n" not in shown
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    told = metadata.parse_session_start_info_plugin_data(content).hparams
    assert told["optimizer.lr"].number_value == 0.1 and told["seed.base"].number_value == 3
    assert told["choices.model"].string_value == "mlp"
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    shown = {info.name.tag for info in metadata.parse_experiment_plugin_data(content).metric_infos}
    assert "summary/risk/test" in shown


def test_mlflow(run):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run.folder.parent / 'mlflow.db'}")
    stored = client.get_run((run.folder / "mlflow_run_id").read_text().strip())
    named = {name.replace("/stderr", "_stderr"): value for name, value in expected(run).items()}
    assert {name: stored.data.metrics[name] for name in named} == named
    assert stored.data.metrics["best_epoch"] == run.summary["risk/val"].epoch
    tags = stored.data.tags
    assert (tags["truerisk.study"], tags["truerisk.seed"]) == ("study", "seed=3")
    assert tags["truerisk.folder"] == str(run.folder) and tags["truerisk.status"] == "finished"
    assert tags["truerisk.weights"] == str(run.run.best)
    kept = {file.path for file in client.list_artifacts(stored.info.run_id)}
    assert kept == {"best.ckpt", "config.yaml", "summary.json", "risk.png"}
    assert list((run.folder.parent / "mlruns").rglob("best.ckpt"))
    curve = [(m.step, m.value) for m in client.get_metric_history(stored.info.run_id, "risk/val")]
    assert [step for step, _ in curve] == [*range(16), 15]


def test_mlflows_store_of_files(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    from truerisk.core.errors import ConfigError
    from truerisk.logger import MLflow

    uri = f"file://{tmp_path / 'mlruns'}"
    with pytest.raises(ConfigError, match=r"tracking_uri=file:.*MLFLOW_ALLOW_FILE_STORE=true"):
        MLflow(tmp_path / "run", "id", tracking_uri=uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLflow(tmp_path / "run", "id", tracking_uri=uri)
    logger.log_metrics({"risk/val": 2.0, "risk/val/stderr": 0.5}, 3)
    logger.finalize("success")
    held = MlflowClient(uri).get_run(logger.run_id).data.metrics
    assert held == {"risk/val": 2.0, "risk/val_stderr": 0.5}


def test_optunas_trials_know_their_runs(tmp_path, monkeypatch, capsys):
    import optuna

    monkeypatch.chdir(tmp_path)
    overrides = ["optimizer.lr=interval(0.01,0.1)", "seed=1,2", "data=iris", "figures=false"]
    more = ["model.width=4", "trainer.max_epochs=3", "report=false", "study=tuned"]
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.trials=2", "hydra/launcher=vectorized"]
    assert main(["train", "-m", *overrides, *more, *sweeper]) == 0
    capsys.readouterr()
    (study,) = optuna.get_all_study_names(storage := "sqlite:///outputs/tuned/optuna.db")
    for trial in optuna.load_study(study_name=study, storage=storage).trials:
        runs = [truerisk.load_run(folder) for folder in trial.user_attrs["folder"]]
        assert len(runs) == 2 and trial.user_attrs["status"] == "finished"
        curves = [r.history[r.history.name == "risk/val"].set_index("epoch").value for r in runs]
        assert trial.intermediate_values == pytest.approx(dict((sum(curves) / 2).items()))
        low, high = sorted(r.summary["risk/val"].value for r in runs)
        assert trial.value == pytest.approx((low + high) / 2)
        # of two numbers the standard error of the mean is half their distance
        assert trial.user_attrs["stderr"] == pytest.approx((high - low) / 2)
