"""Checkpoints: written aside and renamed, often enough that a kill costs seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from truerisk.core.errors import ConfigError, Interrupted
from truerisk.core.files import part_path, put_in_place, replacing

if TYPE_CHECKING:
    from truerisk.engine.lightning import RiskModule


class Checkpointer(Checkpoint):
    """Keeps ``last.ckpt`` (to go on from) and ``best.ckpt`` (the weights that count).

    Both are written at most every ``seconds``, in mid-epoch too, when the run is asked to stop and
    when it ends. The best weights travel in ``last.ckpt`` as well, so that one file, renamed into
    place, is always a whole and consistent run.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder / "checkpoints", seconds
        self._saved_at = time.monotonic()
        self._best_epoch: int | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in mid-epoch, where it is due; an epoch that has ended is measured first."""
        mid_epoch = pl_module.step_in_epoch < pl_module.plan.steps_per_epoch
        if mid_epoch and pl_module.take_step.count < pl_module.horizon:
            self._save_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save after the measurement, where it is due."""
        self._save_if_due(trainer, pl_module)

    def _save_if_due(self, trainer: L.Trainer, pl_module: Any) -> None:
        stop = self._any(trainer, bool(pl_module.stop_requested))
        if stop or self._due(trainer):
            self.save(trainer, pl_module)
        if stop:
            raise Interrupted

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the finished run."""
        self.save(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the best weights of a run that broke off, before they are measured."""
        if trainer.is_global_zero:
            self._save_best(pl_module)

    def _due(self, trainer: L.Trainer) -> bool:
        return self._any(trainer, time.monotonic() - self._saved_at >= self.seconds)

    @staticmethod
    def _any(trainer: L.Trainer, decision: bool) -> bool:
        """Whether any process says so."""
        if trainer.world_size == 1:
            return decision
        return trainer.strategy.reduce_boolean_decision(decision, all=False)

    def save(self, trainer: L.Trainer, module: RiskModule) -> None:
        """Write both files."""
        last = self.folder / "last.ckpt"
        part = part_path(last)
        trainer.save_checkpoint(part, weights_only=False)
        if trainer.is_global_zero:
            put_in_place(part, last)
            self._save_best(module)
        self._saved_at = time.monotonic()

    def _save_best(self, module: RiskModule) -> None:
        if module.best is None or module.best.epoch == self._best_epoch:
            return
        with replacing(self.folder / "best.ckpt") as part:
            torch.save({**module.best._asdict(), "data": module.data.state_dict()}, part)
        self._best_epoch = module.best.epoch


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist: the run was cut off before its first checkpoint")
    remedy = "; delete it, and resume starts the run anew" if path.name == "last.ckpt" else ""
    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path} is not a readable checkpoint ({why}){remedy}") from error
    if not {"truerisk", "state"} & set(found):
        raise ConfigError(f"{path} is not a readable checkpoint of a run{remedy}")
    return found
