"""One cell of a study: a configuration, and the folder of its run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truerisk.outcome import Outcome
from truerisk.run import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from truerisk.result import RunResult

DONE = ("finished", "diverged")
"""How a cell ends that is not tried again."""


@dataclass(frozen=True)
class Cell:
    """A run that a sweep asks for.

    Attributes:
        overrides: all of the cell's overrides, without Hydra's own.
        varied: those of them that tell it from other cells of the same command.
        config: its plain, resolved configuration; empty where it could not be composed.
        folder: where its run lies or will lie; the name ends in the configuration's hash.
        hydra: Hydra's own node of the configuration.
        problem: why it cannot work; empty where nothing is known against it.
    """

    overrides: tuple[str, ...]
    varied: tuple[str, ...]
    config: Mapping[str, Any]
    folder: Path
    hydra: Any = None
    problem: str = ""

    @cached_property
    def cfg(self) -> DictConfig:
        """The configuration as `truerisk.fit.train_config` takes it."""
        from omegaconf import OmegaConf

        cfg = OmegaConf.create(dict(self.config))
        OmegaConf.set_struct(cfg, True)
        return cfg

    @property
    def run(self) -> RunFolder:
        """The files of its run."""
        return RunFolder(self.folder)

    @property
    def label(self) -> str:
        """What tells it from the others, as its folder's name has it."""
        return label(self.folder)

    def outcome(self) -> Outcome:
        """How its run stands: ``missing`` where it has not begun."""
        return recorded(self.run)


def label(folder: Path) -> str:
    """A cell's folder without the hash.

    >>> label(Path("outputs/seed/optimizer=sgd,seed=3-0123456789"))
    'optimizer=sgd,seed=3'
    """
    return re.sub(r"-[0-9a-f]{10}$", "", folder.name)


def recorded(run: RunFolder) -> Outcome:
    """How a run stands, by its folder, without loading torch."""
    record = run.status()
    status = record.get("status", "missing") if run.config.exists() else "missing"
    risk = math.nan if status == "diverged" else _validation_risk(run.path)
    return Outcome(risk, status, record.get("reason", ""), new=False)


def outcome(result: RunResult) -> Outcome:
    """How a run ended that has just been at work."""
    risk = result.summary.get("risk/val") if result.status != "diverged" else None
    return Outcome(risk.value if risk else math.nan, result.status, result.reason)


def _validation_risk(folder: Path) -> float:
    try:
        return json.loads((folder / "summary.json").read_text())["risk/val"]["value"]
    except (OSError, ValueError, KeyError):
        return math.nan
