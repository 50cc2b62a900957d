"""A bare loop and a Lightning run that take turns."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, Trainer

from benchmarks.bare import BareLoop
from benchmarks.task import Task


class Turns(Callback):
    """Times ``Trainer.fit`` beside a bare loop of as many steps.

    Before each epoch of the run, its clock stands still and the bare loop takes an epoch: a
    machine that slows down slows both. The clock runs from set-up to tear-down otherwise, over
    all measurements and checkpoints.
    """

    def __init__(self, task: Task) -> None:
        self.bare, self.took = BareLoop(task), 0.0

    def setup(self, *_args: Any, **_kwargs: Any) -> None:
        self._began = perf_counter()

    def on_train_epoch_start(self, *_args: Any) -> None:
        paused = perf_counter()
        self.bare.epoch()
        self._began += perf_counter() - paused

    def teardown(self, trainer: Trainer, *_args: Any, **_kwargs: Any) -> None:
        self.took = perf_counter() - self._began
        assert trainer.global_step == self.bare.steps

    @property
    def seconds(self) -> float:
        """The run's, a step."""
        return self.took / self.bare.steps

    @property
    def peer(self) -> float:
        """The bare loop's, a step."""
        return self.bare.seconds / self.bare.steps
