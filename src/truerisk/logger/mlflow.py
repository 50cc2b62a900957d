"""MLflow."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from truerisk.core.errors import ConfigError, first_line
from truerisk.logger.label import (
    best_epoch,
    find_study,
    flatten_summary,
    recipe_name,
    recipe_tags,
    seed_tags,
)

ID_FILE = "mlflow_run_id"


def local_store_uri(folder: Path) -> str:
    """Locate the SQLite store of a folder's runs: in the ``outputs`` above it, else beside it.

    >>> local_store_uri(Path("/home/a/outputs/2030-01-01/12-00-00"))
    'sqlite:////home/a/outputs/mlflow.db'
    >>> local_store_uri(Path("/scratch/run"))
    'sqlite:////scratch/mlflow.db'
    """
    folder = folder.absolute()
    shelf = next((p for p in folder.parents if p.name == "outputs"), folder.parent)
    return f"sqlite:///{shelf / 'mlflow.db'}"


def require_mlflow(uri: str) -> None:
    """Check that MLflow, and what a database as its store needs, is installed.

    Raises:
        ConfigError: something is not.
    """
    needed = ["mlflow"]
    if uri.startswith("sqlite:"):
        needed += ["sqlalchemy", "alembic"]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"logger=mlflow: {', '.join(missing)} not installed; pip install 'truerisk[mlflow]'"
        )


def find_artifacts(uri: str) -> str | None:
    """Locate the artifacts of a SQLite store: beside it, not in the working folder as MLflow would.

    >>> find_artifacts("sqlite:////scratch/mlflow.db")
    'file:///scratch/mlruns'
    >>> find_artifacts("http://localhost:5000")
    """
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlruns").as_uri()


@contextmanager
def lock_store(uri: str) -> Iterator[None]:
    """Hold the lock of a SQLite store; other stores need none."""
    # two processes that create its tables at once break it
    if not uri.startswith("sqlite:///"):
        yield
        return
    from filelock import FileLock

    file = Path(uri.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        yield


@contextmanager
def refusing_store(uri: str) -> Iterator[None]:
    """Turn what MLflow says of a store that it will not open into an error of the configuration."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        why = first_line(error)
        if "MLFLOW_ALLOW_FILE_STORE" in why:  # it says so in six sentences
            why = "MLflow keeps runs in a database now; MLFLOW_ALLOW_FILE_STORE=true allows folders"
        raise ConfigError(f"logger.mlflow.tracking_uri={uri}: {why}") from error


class MLflow(MLFlowLogger):
    """Lightning's MLflow logger for one run folder.

    MLflow's id of the run is kept in ``folder/mlflow_run_id``: a resumed run goes on with the same
    MLflow run, and what had been logged already is not logged twice. Standard errors are called
    ``risk/val_stderr``, as a store of files has no place for ``risk/val/stderr`` beside
    ``risk/val``. At its end a run logs what summary.json holds, at its last step, so that the
    values MLflow shows and sorts by are those of the best weights; ``best_epoch`` is their epoch.

    | tag | what it is |
    |---|---|
    | ``recipe``, ``truerisk.seed`` | the recipe's parts, and the seeds |
    | ``truerisk.study`` | the study that the run is a cell of |
    | ``truerisk.run_id``, ``truerisk.folder`` | the run, here |
    | ``truerisk.weights``, ``truerisk.status`` | its best weights, and how it ended |

    Args:
        folder: the run's folder.
        run_id: the run's id, kept as the tag ``truerisk.run_id``.
        config: the run's resolved config, stored as parameters (the first 250 characters of each).
        resume_step: the step a resumed run takes up at; None starts a new MLflow run.
        experiment: MLflow's experiment.
        name: the run's name; None makes one from the recipe and the folder.
        tags: further ones; the recipe's parts are the tag ``recipe``.
        tracking_uri: MLflow's store; None takes MLFLOW_TRACKING_URI, else see ``local_store_uri``.
        artifacts: whether MLflow keeps the best weights, the configuration, the summary and the
            figures too.

    Raises:
        ConfigError: MLflow is not installed, or its store does not know the resumed run.
    """

    def __init__(
        self,
        folder: str | Path,
        run_id: str,
        config: Mapping[str, Any] | None = None,
        resume_step: int | None = None,
        experiment: str = "truerisk",
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        tracking_uri: str | None = None,
        artifacts: bool = False,
    ) -> None:
        folder = Path(folder).absolute()
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or local_store_uri(folder)
        require_mlflow(uri)
        # it would print a line about every table it makes
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._config = dict(config or {})
        own = {
            "recipe": ", ".join(recipe_tags(self._config)),
            "truerisk.run_id": run_id,
            "truerisk.folder": str(folder),
            "truerisk.seed": ", ".join(seed_tags(self._config)),
            "truerisk.study": find_study(folder) or "",
        }
        own = {name: text for name, text in own.items() if text}
        with lock_store(uri), refusing_store(uri):
            super().__init__(
                experiment_name=experiment,
                run_name=name or f"{recipe_name(self._config)} {folder.name}",
                tracking_uri=uri,
                tags={**own, **(tags or {})},
                run_id=self._read_run_id(folder) if resume_step is not None else None,
            )
        self._folder, self._id_file = folder, folder / ID_FILE
        self._logged: dict[str, int] = {}
        self._step, self._artifacts, self.shows_figures = 0, artifacts, artifacts

    @staticmethod
    def _read_run_id(folder: Path) -> str | None:
        file = folder / ID_FILE
        return file.read_text().strip() if file.exists() else None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client, with the run started or resumed."""
        if not self._initialized:
            if self._run_id:
                self._resume_run(self._run_id)
            else:
                self._start_run()
        return self._mlflow_client

    def _start_run(self) -> None:
        """Create a run, and remember its id in the run's folder."""
        # Lightning's property would set MLFLOW_TRACKING_URI for whatever runs later
        from mlflow.tracking.context.registry import resolve_tags

        run = self._mlflow_client.create_run(
            self._find_experiment(), run_name=self._run_name, tags=resolve_tags(self.tags)
        )
        self._adopt_run(run)
        self._id_file.parent.mkdir(parents=True, exist_ok=True)
        self._id_file.write_text(f"{self._run_id}\n")
        self.log_hyperparams(self._config)

    def _find_experiment(self) -> str:
        """Return the id of the experiment, created if there is none."""
        from mlflow.exceptions import MlflowException

        experiment = self._mlflow_client.get_experiment_by_name(self._experiment_name)
        if experiment is None:
            try:
                where = find_artifacts(str(self._tracking_uri))
                name = self._experiment_name
                return str(self._mlflow_client.create_experiment(name, artifact_location=where))
            except MlflowException:
                # another process may have been faster
                experiment = self._mlflow_client.get_experiment_by_name(self._experiment_name)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def _resume_run(self, run_id: str) -> None:
        """Go on with a stored run, and read the last step of each of its metrics."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._mlflow_client.get_run(run_id)
        except MlflowException as error:
            raise ConfigError(
                f"logger=mlflow: the store {self._tracking_uri} does not know the run that "
                f"{self._id_file} names; set logger.mlflow.tracking_uri to the store it was logged "
                "to, or delete that file to start a new MLflow run"
            ) from error
        for name in run.data.metrics:
            history = self._mlflow_client.get_metric_history(run_id, name)
            self._logged[name] = max(point.step for point in history)
        self._mlflow_client.update_run(run_id, status="RUNNING")
        self._adopt_run(run)

    def _adopt_run(self, run: Any) -> None:
        self._run_id, self._experiment_id = run.info.run_id, run.info.experiment_id
        self._initialized = True

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what the store does not have yet.

        Args:
            metrics: values by name.
            step: the optimizer step; None is 0.
        """
        self._step = step = step or 0
        _ = self.experiment  # resumes the run, and reads what it has logged
        named = {file_name(name): float(value) for name, value in metrics.items()}
        new = {name: v for name, v in named.items() if step > self._logged.get(name, -1)}
        if new:
            super().log_metrics(new, step)

    @rank_zero_only
    def log_summary(self, summary: Mapping[str, Any], status: str) -> None:
        """Log what the run has come to, so that it is what MLflow shows and sorts by.

        Args:
            summary: measured numbers by name, those of summary.json.
            status: how it ended.
        """
        client, values = self.experiment, flatten_summary(summary)
        values |= {"best_epoch": float(best_epoch(summary) or 0)} if values else {}
        if values:
            # at the last step: of several values at one step MLflow takes the latest for the last
            super().log_metrics({file_name(k): v for k, v in values.items()}, self._step)
        client.set_tag(self._run_id, "truerisk.status", status)
        files = [self._folder / name for name in ("config.yaml", "summary.json")]
        weights = self._folder / "checkpoints" / "best.ckpt"
        if weights.exists():
            client.set_tag(self._run_id, "truerisk.weights", str(weights))
        if self._artifacts:
            files += [weights, *sorted((self._folder / "figures").glob("*.png"))]
            for file in filter(Path.exists, files):
                client.log_artifact(self._run_id, str(file))


def file_name(metric: str) -> str:
    """Name a metric so that a store of files can hold it beside the one it belongs to.

    >>> file_name("risk/val/stderr"), file_name("risk/val")
    ('risk/val_stderr', 'risk/val')
    """
    return re.sub("/stderr$", "_stderr", metric)
