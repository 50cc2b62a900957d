"""A measured number, as summaries keep it: apart from estimates, so that reading needs no torch."""

from __future__ import annotations

from typing import NamedTuple


class Measured(NamedTuple):
    """A measured number, its standard error, and after which epoch it was measured."""

    value: float
    stderr: float | None = None
    epoch: int | None = None
