"""A run as its folder tells it, for notebooks and reports."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from truerisk.core.errors import ConfigError
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder
from truerisk.task import get_task

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pandas import DataFrame
    from torch import nn


class RunResult:
    """What a run found. Nothing is read before it is asked for.

    ``summary`` maps names such as ``risk/test`` to ``value``, ``stderr`` and ``epoch``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.run = RunFolder(folder)
        self.folder = self.run.path

    def __repr__(self) -> str:
        return f"RunResult({str(self.folder)!r}, status={self.status!r})"

    @property
    def status(self) -> str:
        """One of running, finished, diverged, failed and interrupted."""
        return self.run.status().get("status", "running")

    @property
    def reason(self) -> str:
        """Why the run diverged, failed or was interrupted."""
        return self.run.status().get("reason", "")

    @cached_property
    def summary(self) -> Mapping[str, Measured]:
        """The risks at the best weights; empty where nothing was measured."""
        return self.run.summary()

    @cached_property
    def config(self) -> DictConfig:
        """The resolved configuration."""
        from omegaconf import OmegaConf

        return OmegaConf.load(self.run.config)  # type: ignore[return-value]

    @cached_property
    def history(self) -> DataFrame:
        """All that was logged: columns step, epoch, name, value."""
        from truerisk.logger import read_history

        return read_history(self.folder)

    @cached_property
    def model(self) -> nn.Module:
        """The model with its best weights, in eval mode."""
        from truerisk.assemble import build, build_model
        from truerisk.data import DataInfo
        from truerisk.engine.checkpoint import load

        facts = self.run.metadata()
        shape = tuple(facts["data"]["input_shape"])
        info = DataInfo(**{**facts["data"], "input_shape": shape})
        regularizers = {name: build(node) for name, node in self.config.regularizer.items()}
        model = build_model(self.config, info, regularizers, facts["seeds"]["init"])
        model.load_state_dict(load(self.run.best)["state"], assign=True)
        return model.eval()

    @property
    def title(self) -> str:
        """The recipe in a few words."""
        from truerisk.logger.label import recipe_name

        return recipe_name(self.config)

    @property
    def task(self) -> str:
        """``classification``, ``regression``, or ``function`` where there was no data."""
        return self.run.metadata().get("data", {}).get("task", "")

    @property
    def figure(self) -> Path:
        """The picture of train and validation risk, or of the path on a test function."""
        return self.run.figures / get_task(self.task).figure_name

    def report(self) -> None:
        """Print how the run ended, its table, and where its figure lies."""
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
