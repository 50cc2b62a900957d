"""Sweeps: many cells of one study, each done once, on any launcher."""

from __future__ import annotations

from truerisk.sweeps.study_folder import StudyFolder
from truerisk.sweeps.sweep_cell import SweepCell

__all__ = ["StudyFolder", "SweepCell"]
