"""One cell as a job of Hydra's: its callbacks, environment and logging around it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from truerisk.outcome import Outcome
from truerisk.sweeps.cell import Cell


@dataclass(frozen=True)
class Jobs:
    """What launchers need of Hydra.

    Attributes:
        context: its loader and callbacks.
        task: what a job calls with its configuration.
        shared: the sweep's configuration, ``hydra.launcher`` in it.
    """

    context: HydraContext
    task: TaskFunction
    shared: DictConfig

    def run(self, cell: Cell, number: int) -> Outcome:
        """Do one cell in this process."""
        done = run_job(
            task_function=self.task,
            config=job_config(cell, number),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.context,
        )
        return told(done)


def told(done: JobReturn) -> Outcome:
    """The outcome in what Hydra returns for a job."""
    value: Any = done.return_value
    return value if isinstance(value, Outcome) else Outcome(math.nan, "failed", "no outcome")


def job_config(cell: Cell, number: int) -> DictConfig:
    """The cell's configuration with Hydra's node, as Hydra would compose it for a job."""
    cfg = copy.deepcopy(cell.cfg)
    with open_dict(cfg):
        cfg.hydra = copy.deepcopy(cell.hydra)
        cfg.hydra.overrides.task = list(cell.overrides)
        cfg.hydra.job.num = number
        cfg.hydra.job.id = str(number)
        cfg.hydra.sweep.subdir = cell.folder.name
    return cfg
