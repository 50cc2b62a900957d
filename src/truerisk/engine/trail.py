"""The path that an optimizer takes through the space of a test function's weights."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch import Callback

from truerisk.core.errors import Diverged
from truerisk.model import Function

LARGEST = 10
"""The dimension up to which a path is kept."""

FAR = 1e15
"""A path that is so many times as far as the start does not come back."""


class Trail(Callback):
    """Logs the weights of a test function, ``w/0``, ``w/1``, …, at the start and after every step.

    They are the weights that are measured: an average's where a regularizer keeps one. As rows of
    metrics.csv they survive an interruption as the other rows do.

    Raises:
        Diverged: the path goes to infinity. A line search stays clear of what is not finite, and
            would never tell.
    """

    def until(self, _count: int) -> float:
        """Steps until it wants to look: always one."""
        return 1

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the start."""
        if pl_module.take_step.count == 0:
            self.look(pl_module, pl_module.epoch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log where the step has led to, beside the epoch that ends with it."""
        self.look(pl_module, pl_module.epoch + 1)
        far = FAR * pl_module.model.reach
        if pl_module.model.w.abs().max() > far:
            raise Diverged(pl_module.take_step.count, "the path", f"has come further than {far:g}")

    def look(self, module: Any, epoch: int) -> None:
        """Log the weights, if they are few."""
        if module.model.size <= LARGEST:
            with module.evaluation() as state, torch.no_grad():
                w = module.model.w if state is None else state["w"]
                values = {f"w/{i}": value for i, value in enumerate(w.tolist())}
            module.log_values(values, epoch)


def trails(model: torch.nn.Module) -> list[Callback]:
    """What records a model's path: nothing unless it is a test function."""
    return [Trail()] if isinstance(model, Function) else []
