"""Launchers that are Hydra plugins of others: joblib, submitit."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.plugins import Plugins

from truerisk.config import quoted
from truerisk.outcome import Outcome
from truerisk.sweeps.cell import Cell
from truerisk.sweeps.launcher.job import Jobs, told


class Plugin:
    """Hands Hydra's launcher the overrides of each cell, its folder among them."""

    def launch(self, cells: Sequence[Cell], jobs: Jobs) -> list[Outcome]:
        """Do the cells wherever the plugin does them."""
        plugin = Plugins.instance().instantiate_launcher(
            hydra_context=jobs.context, task_function=jobs.task, config=jobs.shared
        )
        overrides = [_overrides(cell) for cell in cells]
        return [told(done) for done in plugin.launch(overrides, initial_job_idx=0)]


def _overrides(cell: Cell) -> list[str]:
    return [*cell.overrides, f"hydra.sweep.subdir={quoted(cell.folder.name)}"]
