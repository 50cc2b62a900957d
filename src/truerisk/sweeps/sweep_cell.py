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
import hashlib
from collections.abc import Sequence

DONE = ("finished", "diverged")
"""How a cell ends that is not tried again."""


@dataclass(frozen=True)
class SweepCell:
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
        return strip_hash(self.folder)

    def outcome(self) -> Outcome:
        """How its run stands: ``missing`` where it has not begun."""
        return read_outcome(self.run)


def strip_hash(folder: Path) -> str:
    """A cell's folder without the hash.

    >>> strip_hash(Path("outputs/seed/optimizer=sgd,seed=3-0123456789"))
    'optimizer=sgd,seed=3'
    """
    return re.sub(r"-[0-9a-f]{10}$", "", folder.name)


def read_outcome(run: RunFolder) -> Outcome:
    """How a run stands, by its folder, without loading torch."""
    record = run.status()
    status = record.get("status", "missing") if run.config.exists() else "missing"
    risk = math.nan if status == "diverged" else _validation_risk(run.path)
    return Outcome(risk, status, record.get("reason", ""), new=False)


def outcome_of_result(result: RunResult) -> Outcome:
    """How a run ended that has just been at work."""
    risk = result.summary.get("risk/val") if result.status != "diverged" else None
    return Outcome(risk.value if risk else math.nan, result.status, result.reason)


def _validation_risk(folder: Path) -> float:
    try:
        return json.loads((folder / "summary.json").read_text())["risk/val"]["value"]
    except (OSError, ValueError, KeyError):
        return math.nan


IGNORED = frozenset(
    {"logger", "threads", "checkpoint_seconds", "resume", "study", "figures", "report", "hydra"}
)
"""Keys that say where and how fast a run goes, and who else is told of it."""
IGNORED_IN_DATA = frozenset({"in_memory", "workers", "cache"})
"""How samples get into memory."""
DIGITS = 10
LONGEST = 120
"""Characters of a folder's name before its hash; file systems take 255 bytes."""


def hash_config(config: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of the SHA-256 of a plain, resolved configuration.

    Left out is what does not change the result: loggers, threads, checkpoint times, paths of the
    run itself. What does stays in: diagnostics, as what they saw is part of it, and the device and
    the precision, which change the last digits. The order of keys does not count, but that of
    regularizers does: they edit the batch one after another. ``1`` and ``1.0`` differ, as they do
    for ``data.test``.

    >>> hash_config({"a": 1, "b": 2, "threads": 4}) == fingerprint({"b": 2, "a": 1})
    True
    """
    kept: dict[str, Any] = {key: node for key, node in config.items() if key not in IGNORED}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = _reading_left_out(kept["data"])
    if isinstance(kept.get("regularizer"), Mapping):
        kept["regularizer"] = list(kept["regularizer"].items())
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _reading_left_out(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: node for key, node in data.items() if key not in IGNORED_IN_DATA}
    if isinstance(kept.get("source"), Mapping):
        kept["source"] = {k: v for k, v in kept["source"].items() if k not in IGNORED_IN_DATA}
    return kept


def make_slug(overrides: Sequence[str]) -> str:
    """The overrides as part of a folder's name.

    >>> make_slug(["optimizer=sgd", "seed.base=3", "regularizer=[l2,dropout]", "a.path='b/c'"])
    'optimizer=sgd,seed=3,regularizer=l2+dropout,a.path=b-c'
    """
    named = [re.sub(r"^(\+{0,2})seed\.base=", r"\1seed=", text) for text in overrides]
    inner = [text.strip("+~").replace(",", "+") for text in named]
    clean = [re.sub(r"[^\w.=+-]+", "-", re.sub(r"[\[\]{}'\"]", "", text)) for text in inner]
    return ",".join(clean)[:LONGEST].rstrip("-,.") or "run"
