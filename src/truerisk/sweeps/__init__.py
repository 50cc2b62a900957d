"""Sweeps: many cells of one study, each done once, on any launcher."""

from __future__ import annotations

from truerisk.sweeps.cell import Cell
from truerisk.sweeps.study import Study

__all__ = ["Cell", "Study"]
