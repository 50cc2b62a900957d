"""MLflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from truerisk.core.errors import ConfigError
from truerisk.logger.label import recipe_name, recipe_tags

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


class MLflow(MLFlowLogger):
    """Lightning's MLflow logger for one run folder.

    MLflow's id of the run is kept in ``folder/mlflow_run_id``: a resumed run goes on with the same
    MLflow run, and what had been logged already is not logged twice.

    Args:
        folder: the run's folder.
        run_id: the run's id, kept as the tag ``truerisk.run_id``.
        config: the run's resolved config, stored as parameters (the first 250 characters of each).
        resume_step: the step a resumed run takes up at; None starts a new MLflow run.
        experiment: MLflow's experiment.
        name: the run's name; None makes one from the recipe and the folder.
        tags: further ones; the recipe's parts are the tag ``recipe``.
        tracking_uri: MLflow's store; None takes MLFLOW_TRACKING_URI, else see ``local_store_uri``.

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
    ) -> None:
        folder = Path(folder)
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or local_store_uri(folder)
        require_mlflow(uri)
        # it would print a line about every table it makes
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._config = dict(config or {})
        parts = ", ".join(recipe_tags(self._config))
        with lock_store(uri):
            super().__init__(
                experiment_name=experiment,
                run_name=name or f"{recipe_name(self._config)} {folder.name}",
                tracking_uri=uri,
                tags={"truerisk.run_id": run_id, "recipe": parts, **(tags or {})},
                run_id=self._read_run_id(folder) if resume_step is not None else None,
            )
        self._id_file = folder / ID_FILE
        self._logged: dict[str, int] = {}

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
                return str(self._mlflow_client.create_experiment(self._experiment_name))
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
        step = step or 0
        _ = self.experiment  # resumes the run, and reads what it has logged
        new = {k: float(v) for k, v in metrics.items() if step > self._logged.get(k, -1)}
        if new:
            super().log_metrics(new, step)
