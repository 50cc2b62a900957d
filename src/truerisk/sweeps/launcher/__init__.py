"""Where and how the cells of a sweep run: `Launcher` is the base of one of your own."""

from __future__ import annotations

from truerisk.sweeps.launcher.launcher import (
    CellWork,
    HydraJobs,
    Launcher,
    SerialLauncher,
    claim_cells,
    lost_outcome,
    tell_far,
    tell_lost,
    tell_reasons,
)

__all__ = [
    "CellWork",
    "HydraJobs",
    "Launcher",
    "SerialLauncher",
    "claim_cells",
    "lost_outcome",
    "tell_far",
    "tell_lost",
    "tell_reasons",
]
