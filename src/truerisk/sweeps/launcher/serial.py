"""One cell after another, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from truerisk.outcome import Outcome
from truerisk.sweeps.cell import Cell
from truerisk.sweeps.launcher.job import Jobs


class Serial:
    """``hydra/launcher=basic``."""

    def launch(self, cells: Sequence[Cell], jobs: Jobs) -> list[Outcome]:
        """Do the cells in turn."""
        return [jobs.run(cell, number) for number, cell in enumerate(cells)]
