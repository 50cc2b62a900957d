"""The runs below some folders, as their files tell them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from truerisk.config.parts import existing_folder
from truerisk.core.errors import ConfigError
from truerisk.core.seeds import streams
from truerisk.logger.history import read_rows
from truerisk.reports.command import command_line
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder

CURVES = ("risk/train", "risk/val", "error/train", "error/val")
"""What is read of a run's history."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, which takes a twentieth of the time, where PyYAML was built with it."""


class Curve(NamedTuple):
    """A number measured after several epochs."""

    epoch: np.ndarray
    step: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run: what it was, how it ended, what it measured."""

    folder: Path
    config: Mapping[str, Any]
    status: str
    reason: str
    seed: tuple[int, ...]
    """the seeds of its four streams, by which runs of different recipes are paired"""
    started: str
    command: str
    summary: Mapping[str, Measured]
    curves: Mapping[str, Curve]

    @property
    def halved(self) -> bool:
        """Whether successive halving ended it before its time."""
        return self.reason.startswith("successive halving")

    def value(self, metric: str) -> float:
        """What the summary says of a metric; nan where it says nothing."""
        found = self.summary.get(metric)
        return math.nan if found is None else found.value


class Collected(NamedTuple):
    """The runs that were found, and a line for each that could not be read."""

    runs: list[Run]
    unreadable: list[str]


def collect(folders: Iterable[str | Path]) -> Collected:
    """Read every run below the folders, each once; a folder may be a run's own.

    Raises:
        ConfigError: a folder is not there, or there is no run below it.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        paths = list(run_folders(existing_folder(folder, "report")))
        if not paths:
            raise ConfigError(
                f"report: there is no run below {folder} "
                "(a run's folder holds config.yaml and status.json)"
            )
        found |= dict.fromkeys(path.resolve() for path in paths)
    runs, unreadable = [], []
    for path in found:
        try:
            runs.append(read(path))
        except (ConfigError, yaml.YAMLError, ValueError, KeyError, TypeError, OSError) as error:
            unreadable.append(f"{path}: {' '.join(str(error).split())}")
    return Collected(runs, unreadable)


def run_folders(top: Path) -> Iterator[Path]:
    """The folders of runs at or below ``top``, 2 before 10; hidden folders are passed over."""
    for path, inner, files in os.walk(top):
        if {RunFolder.CONFIG, RunFolder.STATUS} <= set(files):
            yield Path(path)
            inner.clear()
        inner[:] = sorted((n for n in inner if not n.startswith(".")), key=natural)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that takes digits as numbers.

    >>> sorted(["lr10", "lr9", "a"], key=natural)
    ['a', 'lr9', 'lr10']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read(path: Path) -> Run:
    """Read one run's files.

    A run that ended with a validation risk that is no number counts as diverged.
    """
    folder = RunFolder(path)
    config = yaml.load(folder.config.read_text(), LOADER)
    facts, status, summary = folder.metadata(), folder.status(), folder.summary()
    ended, reason = status.get("status", "running"), status.get("reason", "")
    risk = summary.get("risk/val")
    if ended == "finished" and risk is not None and not math.isfinite(risk.value):
        ended, reason = "diverged", "the validation risk is not finite"
    return Run(
        folder.path, config, ended, reason, tuple(streams(config["seed"])),
        facts.get("started", ""), command_line(facts.get("command", ()), config), summary,
        read_curves(folder.metrics),
    )  # fmt: skip


def read_curves(path: Path) -> dict[str, Curve]:
    """The risks and errors after each epoch, out of ``metrics.csv``.

    The first value of an epoch counts: what is measured once more at the end is not of the curve.
    """
    wanted = {name.encode(): {} for name in CURVES}  # type: dict[bytes, dict[int, Any]]
    for row in read_rows(path):
        step, epoch, rest = row.split(b",", 2)
        name, _, value = rest.rpartition(b",")
        if epoch and name in wanted:
            wanted[name].setdefault(int(epoch), (int(step), float(value)))
    return {name.decode(): _curve(points) for name, points in wanted.items() if points}


def _curve(points: Mapping[int, tuple[int, float]]) -> Curve:
    epochs = sorted(points)
    step, value = zip(*(points[epoch] for epoch in epochs), strict=True)
    return Curve(np.array(epochs), np.array(step), np.array(value, dtype=float))
