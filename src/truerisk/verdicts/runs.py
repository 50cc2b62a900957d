"""The runs of a study, picked by what they were configured with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload
from weakref import WeakKeyDictionary

import numpy as np
import yaml

from truerisk.core.errors import ConfigError
from truerisk.reports.collect import LOADER
from truerisk.result import RunResult
from truerisk.run import RunFolder


class Runs(Sequence[RunResult]):
    """Runs in a fixed order: what a claim measures, and a figure draws.

    ``runs.only("choices.optimizer", "gd")`` keeps those with that configuration;
    ``runs.by("model.condition")`` sorts them by a number or name in it.
    """

    def __init__(self, runs: Iterable[RunResult]) -> None:
        self._runs = list(runs)

    @classmethod
    def at(cls, folders: Iterable[Path]) -> Runs:
        """The runs in these folders, in the order of their names, as far as there are any.

        Raises:
            ConfigError: there is none.
        """
        found = sorted(folder for folder in folders if RunFolder(folder).config.exists())
        if not found:
            raise ConfigError("the study has no run")
        return cls(RunResult(path) for path in found)

    @overload
    def __getitem__(self, index: int) -> RunResult: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> RunResult | Runs:
        found = self._runs[index]
        return Runs(found) if isinstance(found, list) else found

    def __len__(self) -> int:
        return len(self._runs)

    def only(self, key: str, value: Any) -> Runs:
        """The runs whose configuration has ``value`` at ``key``, such as ``model.condition``."""
        return Runs(run for run in self if setting(run, key) == value)

    def by(self, key: str) -> dict[Any, Runs]:
        """The runs for each value there is at ``key``, in ascending order."""
        values = {setting(run, key) for run in self}
        return {value: self.only(key, value) for value in sorted(values)}

    @property
    def one(self) -> RunResult:
        """The only run.

        Raises:
            ConfigError: there are more, or none.
        """
        if len(self) != 1:
            raise ConfigError(f"one run was expected here, and there are {len(self)}")
        return self[0]


PLAIN: WeakKeyDictionary[RunResult, dict[str, Any]] = WeakKeyDictionary()
"""Configurations that have been read, as plain containers: a study has hundreds of them."""


def setting(run: RunResult, key: str) -> Any:
    """The value at a dotted key of a run's configuration, a list as a tuple; None if it is not."""
    if run not in PLAIN:
        PLAIN[run] = yaml.load(run.run.config.read_text(), LOADER)
    found: Any = PLAIN[run]
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return tuple(found) if isinstance(found, list) else found


def series(run: RunResult, name: str) -> np.ndarray:
    """What a run logged under a name, in the order of its steps; one value a step."""
    rows = run.history[run.history.name == name].drop_duplicates("step")
    return rows.sort_values("step").value.to_numpy()


def last_weights(run: RunResult) -> np.ndarray:
    """All parameters at the end of training, which need not be the best; in one vector."""
    from truerisk.engine.checkpoint import load

    state = load(run.run.last)["state_dict"]
    own = [state[f"model.{name}"] for name, _ in run.model.named_parameters()]
    return np.concatenate([weights.double().flatten().numpy() for weights in own])
