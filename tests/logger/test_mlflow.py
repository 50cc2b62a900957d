import math
import multiprocessing
import os

import pytest
from mlflow.tracking import MlflowClient

from truerisk.core.errors import ConfigError
from truerisk.logger import MLflow
from truerisk.logger.mlflow import local_store_uri

CONFIG = {
    "data": {"_target_": "truerisk.data.Iris"},
    "model": {"_target_": "truerisk.model.MLP", "width": 100},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.125},
    "regularizer": {"l2": {"coefficient": 0.5}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One database for all tests: making its tables takes two seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "run"


def series(store, run, name):
    return [(m.step, m.value) for m in MlflowClient(store).get_metric_history(run, name)]


def test_store_holds_series_parameters_tags_and_status(store, folder):
    logger = MLflow(folder, "id-1", CONFIG, tracking_uri=store, tags={"study": "a"})
    for step in range(3):
        logger.log_metrics({"risk/val": step / 8, "odd": math.nan, "epoch": step}, step=10 * step)
    logger.log_metrics({"odd": math.inf}, step=40)
    logger.finalize("success")
    logger.log_metrics({"risk/test": 0.5}, step=40)
    run = MlflowClient(store).get_run((folder / "mlflow_run_id").read_text().strip())
    assert series(store, run.info.run_id, "risk/val") == [(0, 0.0), (10, 0.125), (20, 0.25)]
    assert run.data.metrics["risk/test"] == 0.5
    assert run.data.params["optimizer/lr"] == "0.125"
    assert run.data.tags["truerisk.run_id"] == "id-1" and run.data.tags["study"] == "a"
    assert run.data.tags["recipe"] == "iris, mlp, adam, l2"
    assert run.info.run_name == "iris-mlp-adam run" and run.info.status == "FINISHED"
    experiment = MlflowClient(store).get_experiment(run.info.experiment_id)
    assert experiment.name == "truerisk"


def test_a_resumed_run_goes_on_with_the_same_one(store, folder):
    first = MLflow(folder, "id-2", CONFIG, tracking_uri=store)
    for step in range(5):
        first.log_metrics({"risk/val": step / 8}, step=step)
    first.finalize("failed")
    again = MLflow(folder, "id-2", CONFIG, resume_step=2, tracking_uri=store)
    assert again.run_id == first.run_id
    client = MlflowClient(store)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    for step in range(3, 8):
        again.log_metrics({"risk/val": step / 8}, step=step)
    again.finalize("success")
    assert series(store, first.run_id, "risk/val") == [(step, step / 8) for step in range(8)]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_a_run_the_store_does_not_know_is_refused(store, folder):
    folder.mkdir()
    (folder / "mlflow_run_id").write_text("0" * 32)
    with pytest.raises(ConfigError, match=r"logger\.mlflow\.tracking_uri"):
        _ = MLflow(folder, "id-3", resume_step=2, tracking_uri=store).experiment


def test_the_environment_names_the_store(store, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    logger = MLflow(folder, "id-4")
    logger.log_metrics({"risk/val": 0.25}, step=1)
    assert series(store, logger.run_id, "risk/val") == [(1, 0.25)]


def log_one(folder):
    logger = MLflow(folder, folder.name)
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")


def test_processes_share_a_fresh_default_store(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # tokenizers 0.20 tells of a fork, whatever for, once a test before has used it
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    folders = [tmp_path / "outputs" / "day" / str(i) for i in range(2)]
    fork = multiprocessing.get_context("fork")
    runs = [fork.Process(target=log_one, args=(folder,)) for folder in folders]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert capfd.readouterr().err == ""
    assert local_store_uri(folders[0]) == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    client = MlflowClient(local_store_uri(folders[0]))
    experiment = client.get_experiment_by_name("truerisk")
    assert len(client.search_runs([experiment.experiment_id])) == 2
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("truerisk.logger.mlflow.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'truerisk\[mlflow\]'"):
        MLflow(folder, "id")
