"""Successive halving: cells of a study that fall behind stop early."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from truerisk.config.options import HalvingOptions
from truerisk.core.errors import ConfigError

FOLDER = ".rungs"


class Rungs:
    """What the cells of a study have reached by epochs r, rη, rη², …, its rungs.

    A cell that comes to a rung goes on if its validation risk is among the best 1/η of all that
    came there before it, itself included and rounded up. Nobody waits: the first goes on in any
    case, so that the choice grows better with the number of cells. Only cells with the same data
    and loss are compared.

    Each result is an empty file whose name holds the cell and the risk, so that any number of
    processes and machines may write at once.

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020),
    algorithm 2 (ASHA), in the form that stops cells instead of promoting them.

    Args:
        study: the study's folder.
        config: the cell's configuration, of which data and loss count.
        first: r, in epochs.
        factor: η.
    """

    def __init__(self, study: Path, config: Mapping[str, Any], first: int, factor: int) -> None:
        same = json.dumps([config["data"], config["loss"]], sort_keys=True, default=str)
        kind = hashlib.sha256(same.encode()).hexdigest()[:10]
        self.folder, self.first, self.factor = study / FOLDER / kind, first, factor

    def reached(self, epoch: int) -> int | None:
        """The highest rung that is not above an epoch; None below the first."""
        rung = self.first
        while rung * self.factor <= epoch:
            rung *= self.factor
        return rung if rung <= epoch else None

    def come(self, cell: str, rung: int, risk: float) -> None:
        """Record a cell's risk at a rung."""
        place = self.folder / str(rung)
        place.mkdir(parents=True, exist_ok=True)
        name = cell.rpartition("-")[2]
        (place / f"{name}={risk!r}").touch()

    def behind(self, rung: int, risk: float) -> str:
        """Why a cell that came to a rung with this risk should stop; empty where it goes on."""
        risks = sorted(self._risks(self.folder / str(rung)).values())
        rank, kept = risks.index(risk) + 1, -(-len(risks) // self.factor)
        if rank <= kept:
            return ""
        return (
            f"successive halving: at epoch {rung} its validation risk {risk:.4g} is number {rank} "
            f"of {len(risks)}, and the best {kept} go on"
        )

    def _risks(self, place: Path) -> dict[str, float]:
        """The risk of each cell at a rung; the same cell, gone on with, comes to the same one."""
        found = (path.name.partition("=") for path in place.iterdir())
        return {name: float(risk) for name, _, risk in found}


class Halving(EarlyStopping):
    """Stops a run that falls behind the other cells of its study.

    An `EarlyStopping` so that Lightning asks it after the epoch has been measured, and before the
    checkpoint is written. Where several cells are measured at once, all of them ``come`` before
    any is asked, so that the best goes on whatever its place in the line.
    """

    def __init__(self, rungs: Rungs, cell: str) -> None:
        super().__init__("risk/val")
        self.rungs, self.cell, self.reason = rungs, cell, ""
        self._rung: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Rungs that a run has passed before it was cut off do not count again."""
        self._rung = self.rungs.reached(pl_module.epoch)

    def come(self, trainer: Trainer, pl_module: Any) -> None:
        """At a rung, or the first measurement after it, record the risk."""
        rung = self._due(pl_module)
        if rung is not None and trainer.is_global_zero:
            self.rungs.come(self.cell, rung, self._risk(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the risk where that is due, and compare it with those that came before."""
        rung = self._due(pl_module)
        if rung is None:
            return
        self.come(trainer, pl_module)
        self._rung = rung
        behind = self.rungs.behind(rung, self._risk(trainer)) if trainer.is_global_zero else ""
        self.reason = trainer.strategy.broadcast(behind)
        trainer.should_stop = trainer.should_stop or bool(self.reason)

    def _due(self, pl_module: Any) -> int | None:
        rung = self.rungs.reached(pl_module.epoch)
        measured = pl_module.epoch % pl_module.recipe.risk.every == 0
        return rung if measured and rung != self._rung else None

    def _risk(self, trainer: Trainer) -> float:
        return float(trainer.callback_metrics[self.monitor])

    def state_dict(self) -> dict[str, Any]:
        """Why it stopped."""
        return {"reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
        self.reason = state_dict["reason"]


def halvings(cfg: DictConfig, folder: Path) -> list[Halving]:
    """The callback for a configuration's ``halving``, if that is on.

    Raises:
        ConfigError: the run is none of a study.
    """
    options = HalvingOptions(**cfg.get("halving", {}))
    if options.first is None:
        return []
    if cfg.get("study") is None:
        raise ConfigError("halving.first compares the cells of a sweep: add --multirun (-m)")
    rungs = Rungs(folder.parent, _plain(cfg), options.first, options.factor)
    return [Halving(rungs, folder.name)]


def _plain(cfg: DictConfig) -> Mapping[str, Any]:
    from truerisk.config.compose import resolve_config

    return resolve_config(cfg)
