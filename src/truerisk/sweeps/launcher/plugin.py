"""Launchers that are Hydra plugins of others: joblib, submitit."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from truerisk.config.compose import quote_override
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import HydraJobs, read_job_outcome
from truerisk.sweeps.sweep_cell import SweepCell

RESTARTS = 1000
"""How often a job may reach its time limit; submitit's own limit is never."""


class HydraPlugin:
    """Hands Hydra's launcher the overrides of each cell, its folder among them."""

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Do the cells wherever the plugin does them.

        Where it loses a job (a worker that crashed, a job that was cancelled) it gives no outcome
        for any; the folders then tell.
        """
        shared = _restarting(jobs.shared)
        plugin = Plugins.instance().instantiate_launcher(
            hydra_context=jobs.context, task_function=jobs.task, config=shared
        )
        overrides = [_overrides(cell) for cell in cells]
        try:
            return [read_job_outcome(done) for done in plugin.launch(overrides, initial_job_idx=0)]
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            print(f"error: {reason}", file=sys.stderr)
            return [lost_outcome(cell, reason) for cell in cells]


def _restarting(shared: DictConfig) -> DictConfig:
    """A job that reaches its time limit is put back in line, unless the user limits that."""
    node, key = shared.hydra.launcher, "max_num_timeout"
    named = [str(o) for o in shared.hydra.overrides.hydra]
    if key in node and not any(o.startswith(f"hydra.launcher.{key}=") for o in named):
        node[key] = RESTARTS
    return shared


def _overrides(cell: SweepCell) -> list[str]:
    return [*cell.overrides, f"hydra.sweep.subdir={quote_override(cell.folder.name)}"]


def lost_outcome(cell: SweepCell, reason: str) -> Outcome:
    """How a cell's folder says it ended; failed, for this reason, where it says nothing."""
    found = cell.outcome()
    lost = found.status in ("missing", "running")
    return Outcome(math.nan, "failed", reason) if lost else found
