"""A run read back from its folder, for notebooks, reports and claims."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.core.errors import ConfigError, first_line
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder
from truerisk.task import get_task

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pandas import DataFrame
    from torch import nn

    from truerisk.data import DataInfo
    from truerisk.predictor import Prediction


class RunResult:
    """The configuration, measurements and model of a run; each is read when it is asked for.

    Args:
        folder: the run's folder, of a run that has ended or is still going.

    Attributes:
        objects: ``model`` and ``data``, where they were given from Python.
    """

    def __init__(self, folder: str | Path) -> None:
        self.run = RunFolder(folder)
        self.folder = self.run.path
        self.objects: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"RunResult({str(self.folder)!r}, status={self.status!r})"

    @property
    def status(self) -> str:
        """One of running, finished, diverged, failed and interrupted; read anew each time."""
        return self.run.status().get("status", "running")

    @property
    def reason(self) -> str:
        """Why the run diverged, failed or was interrupted."""
        return self.run.status().get("reason", "")

    @cached_property
    def summary(self) -> Mapping[str, Measured]:
        """The risks at the best weights by name, such as ``risk/test``; empty where none is."""
        return self.run.summary()

    @cached_property
    def config(self) -> DictConfig:
        """The resolved configuration."""
        return self.run.load_config()

    @cached_property
    def history(self) -> DataFrame:
        """All that was logged, a row a number: columns step, epoch, name, value."""
        from truerisk.logger import read_history

        return read_history(self.folder)

    @cached_property
    def model(self) -> nn.Module:
        """The model with its best weights for raw inputs, in eval mode on the CPU.

        It is a `truerisk.Predictor`: what was fitted to the training data stands before the
        `network`. A test function, which has no inputs, is its network.
        """
        from truerisk.assemble import build_surrogate
        from truerisk.predictor import Predictor

        network, info, task = self.network, self._data_info(), get_task(self.task)
        if not task.has_samples:
            return network
        surrogate = build_surrogate(self.config, info).eval()
        fitted = {"input_shape": info.input_shape, **load_checkpoint(self.run.best)["data"]}
        precision = self.config.trainer.get("precision") or "32-true"
        return Predictor(network, task, fitted, surrogate, precision).eval()

    def _data_info(self) -> DataInfo:
        """Return what the data said of itself, so that a model can be built without it."""
        from truerisk.data import DataInfo

        facts = self.run.read_facts()["data"]
        return DataInfo(**{**facts, "input_shape": tuple(facts["input_shape"])})

    @cached_property
    def network(self) -> nn.Module:
        """The bare network with its best weights, which takes inputs as it was trained on them."""
        from truerisk.assemble import build, build_model
        from truerisk.core.python_objects import offer_objects

        info, seed = self._data_info(), self.run.metadata()["seeds"]["init"]
        # some regularizers change the model, as dropout and spectral norm do
        regularizers = {name: build(node) for name, node in self.config.regularizer.items()}
        with offer_objects(self.objects):
            model = build_model(self.config, info, regularizers, seed)
        model.load_state_dict(load_checkpoint(self.run.best)["state"], assign=True)
        return model.eval()

    def predict(self, x: Any) -> Prediction:
        """Predict at raw inputs, as the run's own data had them.

        Args:
            x: a tensor, an array or lists [n, *shape]; a DataFrame for a run on a table.

        Returns:
            Outputs, probabilities, and the predicted classes or numbers.

        Raises:
            ConfigError: the inputs are of another shape, or the run has no weights.
        """
        from truerisk.predictor import check_inputs, predict_outputs, read_outputs

        predictor: Any = self.model
        outputs = predict_outputs(predictor, check_inputs(predictor, x))
        return read_outputs(predictor, outputs)

    @property
    def title(self) -> str:
        """The data, model and optimizer in three words."""
        from truerisk.logger.label import recipe_name

        return recipe_name(self.config)

    @property
    def task(self) -> str:
        """``classification``, ``regression``, or ``function`` where there was no data."""
        return self.run.metadata().get("data", {}).get("task", "")

    @property
    def figure_file(self) -> Path:
        """Where the figure of risks is, or of the path on a test function, once it is drawn."""
        return self.run.figures / get_task(self.task).figure_name

    @property
    def figure(self) -> Path:
        """The same file, which is drawn now if it is not there yet."""
        from truerisk.show.figure import draw_result

        if not self.figure_file.exists():
            draw_result(self, self.config)
        return self.figure_file

    def report(self) -> None:
        """Print how the run ended, its table of risks, and where its figure is."""
        from truerisk.show.console import print_report

        print_report(self)


def load_run(folder: str | Path) -> RunResult:
    """Open a run's folder.

    Raises:
        ConfigError: there is no run in it.
    """
    result = RunResult(folder)
    if not result.run.config.exists():
        raise ConfigError(f"{result.folder} is not the folder of a run (no config.yaml)")
    return result


def load_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: ``last.ckpt`` or ``best.ckpt``.
        device: where its tensors go.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist: it is lost, or the run was cut off before its first checkpoint"
        )
    remedy = "; train the run again"
    if path.with_name("last.ckpt").exists():
        remedy = "; delete it, and truerisk train resume=FOLDER of the run writes it again"
    if path.name == "last.ckpt":
        remedy = "; delete it, and resume starts the run anew"
    import torch

    try:
        # `weights_only`, as a pickle that comes from elsewhere could run any code
        content = torch.load(path, map_location=device, weights_only=True)
    # a torn or foreign file fails in as many ways as zip and pickle have
    except Exception as error:
        why = first_line(error)
        if "weights_only" in str(error):
            # torch advises to load it by pickle, which is how a file from elsewhere runs its code
            why = "it is damaged, or holds more than weights and numbers"
        raise ConfigError(f"{path} is not a readable checkpoint ({why}){remedy}") from error
    # last.ckpt has the one, best.ckpt the other
    if not {"truerisk", "state"} & set(content):
        raise ConfigError(f"{path} is not a readable checkpoint of a run{remedy}")
    return content
