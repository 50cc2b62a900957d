"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import Pairs


@dataclass(frozen=True)
class Row:
    """What was measured, next to which peer, in which unit, and the ratio asked for."""

    what: str
    peer: str
    unit: str
    pairs: Pairs
    target: float | None = None

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return median(self.pairs.ratios)

    @property
    def met(self) -> bool:
        """Whether the median ratio reaches the target."""
        return self.target is None or self.ratio <= self.target
