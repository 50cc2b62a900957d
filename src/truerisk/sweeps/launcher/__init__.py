"""Where and how the cells of a sweep run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import HydraJobs
from truerisk.sweeps.sweep_cell import SweepCell

__all__ = ["Jobs", "Launcher"]


class Launcher(Protocol):
    """An option of ``hydra/launcher``."""

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Do the cells; how they ended, in their order.

        ``jobs.run(cell, number)`` does one here, as Hydra would; ``attempt`` does one without
        Hydra around it.
        """
