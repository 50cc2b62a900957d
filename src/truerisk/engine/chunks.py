"""Chunks: one Lightning batch carries many optimizer steps.

Lightning spends about a millisecond on each of its batches; a step of a small network takes a
third of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from truerisk.engine.step import MicroBatches

if TYPE_CHECKING:
    from truerisk.data import BatchPlan, Split

SECONDS = 0.2
"""How long a chunk should take: short enough for a live progress bar and a prompt Ctrl-C."""

DISTRIBUTED = 16
"""Steps in a chunk with several processes, which must all cut their epochs alike."""


class Position(NamedTuple):
    """Where in a run an epoch goes on."""

    epoch: int
    """epochs that are over"""
    step: int
    """steps of this epoch that are taken"""
    end: int
    """step of this epoch at which it, or the run, ends"""
    taken: int
    """steps of the run that are taken"""


class Chunks:
    """What is left of an epoch, from the `Position` that ``where()`` gives.

    How the steps are cut into chunks follows the clock, and ends where a callback wants to look:
    ``until(count)`` says how many steps away that is. What the steps compute does not depend on it.
    """

    def __init__(
        self,
        plan: BatchPlan,
        split: Split,
        where: Callable[[], Position],
        until: Callable[[int], float],
        world: int,
    ) -> None:
        self.plan, self.split, self.where, self.until, self.world = plan, split, where, until, world
        self.pace: float | None = None  # seconds a step, of the last chunk that was trained

    def __iter__(self) -> Iterator[Iterator[MicroBatches]]:
        at = self.where()
        steps = list(islice(self.plan.epoch(at.epoch, at.step), at.end - at.step))
        batches = self.split.batches([index for step in steps for index, _ in step])
        shares = iter([[share for _, share in step] for step in steps])
        count = at.taken
        while taken := list(islice(shares, int(min(self._size(), self.until(count))))):
            count += len(taken)
            yield self._timed([(next(batches), share) for share in step] for step in taken)

    def _size(self) -> int:
        if self.world > 1:
            return DISTRIBUTED
        return 1 if self.pace is None else max(1, int(SECONDS / self.pace))

    def _timed(self, steps: Iterator[MicroBatches]) -> Iterator[MicroBatches]:
        began, count = time.perf_counter(), 0
        for count, step in enumerate(steps, 1):  # noqa: B007
            yield step
        self.pace = (time.perf_counter() - began) / max(count, 1)
