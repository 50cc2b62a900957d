"""Launchers that are Hydra plugins of others: joblib, submitit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from truerisk.config.compose import quote_override
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import (
    CellWork,
    Launcher,
    describe_error,
    lost_outcome,
    read_job_outcome,
)
from truerisk.sweeps.sweep_cell import SweepCell

RESTARTS = 1000
"""How often a job may reach its time limit; submitit's own limit is never."""


class HydraPlugin(Launcher):
    """Hands Hydra's launcher the overrides of each cell, its folder among them."""

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run the cells wherever the plugin runs them."""
        jobs, cells = works[0].jobs, [work.cell for work in works]
        plugin = Plugins.instance().instantiate_launcher(
            hydra_context=jobs.context,
            task_function=jobs.task,
            config=_allow_restarts(jobs.shared),
        )
        overrides = [
            [*cell.overrides, f"hydra.sweep.subdir={quote_override(cell.folder.name)}"]
            for cell in cells
        ]
        try:
            ended = plugin.launch(overrides, initial_job_idx=0)
            outcomes = [read_job_outcome(job) for job in ended]
        except Exception as error:
            # a plugin that loses one job (a worker that crashed, a job that was cancelled) gives
            # no outcome for any of them
            print(f"error: {describe_error(error)}", file=sys.stderr)
            outcomes = [lost_outcome(cell, error) for cell in cells]
        yield from zip(cells, outcomes, strict=True)


def _allow_restarts(shared: DictConfig) -> DictConfig:
    """Let a job that reaches its time limit go back in line, unless the user limits that."""
    node, key = shared.hydra.launcher, "max_num_timeout"
    overrides = [str(override) for override in shared.hydra.overrides.hydra]
    if key in node and not any(o.startswith(f"hydra.launcher.{key}=") for o in overrides):
        node[key] = RESTARTS
    return shared
