"""The path that an optimizer takes through the space of a test function's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from truerisk.core.errors import Diverged
from truerisk.engine.loop import Observer, TrainingLoop
from truerisk.model import Function

LARGEST = 10
"""The dimension up to which a path is kept."""

FAR = 1e15
"""A path that is so many times as far as the start does not come back."""


class TrajectoryLogger(Observer):
    """Log the weights of a test function, ``w/0``, ``w/1``, …, at the start and after every step.

    They are the weights that are measured: an average's where a regularizer keeps one. As rows of
    metrics.csv they survive an interruption as the other rows do.

    Raises:
        Diverged: the path goes to infinity. A line search stays clear of what is not finite, and
            would never tell.
    """

    def on_start(self, loop: TrainingLoop) -> None:
        """Log the start."""
        if loop.first.state.step == 0:
            self.log_weights(loop, loop.first.state.epoch)

    def on_step(self, loop: TrainingLoop) -> None:
        """Log where the step has led to, beside the epoch that ends with it."""
        backend: Any = loop.backend
        self.log_weights(loop, loop.first.state.epoch + 1)
        far = FAR * backend.model.reach
        if backend.model.w.abs().max() > far:
            fault = f"has come further than {far:g}"
            # no fault of the step length alone, as it would be in a bowl
            if not backend.model.bounded:
                fault += ", and the function is unbounded below"
            loop.diverge({0: Diverged(loop.first.state.step, "the path", fault)})

    def log_weights(self, loop: TrainingLoop, epoch: int) -> None:
        """Log the weights, if they are few."""
        backend: Any = loop.backend
        if backend.model.size > LARGEST:
            return
        with backend.evaluating(), torch.no_grad():
            w = backend.model.w if backend.measured is None else backend.measured["w"]
            values = {f"w/{i}": value for i, value in enumerate(w.tolist())}
        loop.first.log(values, epoch)


def make_trajectory_loggers(model: nn.Module) -> list[Observer]:
    """Make what records a model's path: nothing unless it is a test function."""
    return [TrajectoryLogger()] if isinstance(model, Function) else []
