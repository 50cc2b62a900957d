"""One cell as a job of Hydra's: its callbacks, environment and logging around it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from truerisk.outcome import Outcome
from truerisk.sweeps.sweep_cell import SweepCell


@dataclass(frozen=True)
class HydraJobs:
    """What launchers need of Hydra.

    Attributes:
        context: its loader and callbacks.
        task: what a job calls with its configuration.
        shared: the sweep's configuration, ``hydra.launcher`` in it.
    """

    context: HydraContext
    task: TaskFunction
    shared: DictConfig

    def run(self, cell: SweepCell, number: int) -> Outcome:
        """Do one cell in this process."""
        done = run_job(
            task_function=self.task,
            config=build_job_config(cell, number),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.context,
        )
        return read_job_outcome(done)


def read_job_outcome(done: JobReturn) -> Outcome:
    """The outcome in what Hydra returns for a job."""
    value: Any = done.return_value
    return value if isinstance(value, Outcome) else Outcome(math.nan, "failed", "no outcome")


def build_job_config(cell: SweepCell, number: int) -> DictConfig:
    """The cell's configuration with Hydra's node, as Hydra would compose it for a job."""
    cfg = copy.deepcopy(cell.cfg)
    with open_dict(cfg):
        cfg.hydra = copy.deepcopy(cell.hydra)
        cfg.hydra.overrides.task = list(cell.overrides)
        cfg.hydra.job.num = number
        cfg.hydra.job.id = str(number)
        cfg.hydra.sweep.subdir = cell.folder.name
    return cfg


class SerialLauncher:
    """``hydra/launcher=basic``."""

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Do the cells in turn."""
        return [jobs.run(cell, number) for number, cell in enumerate(cells)]
