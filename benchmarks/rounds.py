"""Rounds in which contenders and their peer take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.turns import Turns


@dataclass
class Pairs:
    """A contender's measurements, and each time the peer's beside it."""

    measured: list[float] = field(default_factory=list)
    against: list[float] = field(default_factory=list)

    def add(self, measured: float, against: float) -> None:
        """Add a round."""
        self.measured.append(measured)
        self.against.append(against)

    def scaled(self, factor: float) -> Pairs:
        """The same in another unit."""
        return Pairs([factor * v for v in self.measured], [factor * v for v in self.against])

    @property
    def ratios(self) -> list[float]:
        """One a round."""
        return [a / b for a, b in zip(self.measured, self.against, strict=True)]


def beside_bare(contenders: Mapping[str, Callable[[], Turns]], rounds: int) -> dict[str, Pairs]:
    """Microseconds a step, of runs that take turns with a bare loop epoch by epoch."""
    found = {name: Pairs() for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            turns = contender()
            found[name].add(1e6 * turns.seconds, 1e6 * turns.peer)
    return found


def interleaved(
    peer: Callable[[], float], contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, Pairs]:
    """Measure peer, contender, peer, next contender, …, peer, ``rounds`` times over.

    A contender is compared with the mean of the peer just before and just after it.
    """
    found = {name: Pairs() for name in contenders}
    before = peer()
    for _ in range(rounds):
        for name, contender in contenders.items():
            value, after = contender(), peer()
            found[name].add(value, (before + after) / 2)
            before = after
    return found
