"""A bare loop and a run of a framework that take turns."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, Trainer

from benchmarks.bare import BareLoop
from benchmarks.task import Task


class Turns:
    """Times a run beside a bare loop of as many steps.

    At each epoch of the run its clock stands still and the bare loop takes an epoch: a machine that
    slows down slows both. The clock runs otherwise, over all measurements and checkpoints.
    """

    def __init__(self, task: Task) -> None:
        self.bare, self.took = BareLoop(task), 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._began = perf_counter()

    def give_way(self) -> None:
        """Let the bare loop take an epoch."""
        paused = perf_counter()
        self.bare.epoch()
        self._began += perf_counter() - paused

    def end(self, steps: int) -> None:
        """Stop the clock, after so many steps."""
        self.took = perf_counter() - self._began
        assert steps == self.bare.steps

    @property
    def seconds(self) -> float:
        """The run's, a step."""
        return self.took / self.bare.steps

    @property
    def peer(self) -> float:
        """The bare loop's, a step."""
        return self.bare.seconds / self.bare.steps


class TurnsCallback(Callback):
    """Times ``Trainer.fit``, from set-up to tear-down."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def setup(self, *_args: Any, **_kwargs: Any) -> None:
        self.turns.begin()

    def on_train_epoch_start(self, *_args: Any) -> None:
        self.turns.give_way()

    def teardown(self, trainer: Trainer, *_args: Any, **_kwargs: Any) -> None:
        self.turns.end(trainer.global_step)
