"""The runs of a study, picked by what they were configured with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload
from weakref import WeakKeyDictionary

import numpy as np

from truerisk.core.errors import ConfigError
from truerisk.logger.history import MetricRows, read_metric_rows
from truerisk.result import RunResult, load_checkpoint
from truerisk.run import RunFolder


class Runs(Sequence[RunResult]):
    """Runs in a fixed order: what a claim measures, and a figure draws.

    ``runs.with_setting("choices.optimizer", "gd")`` keeps those with that configuration;
    ``runs.grouped_by("model.condition")`` sorts them by a number or name in it.
    """

    def __init__(self, runs: Iterable[RunResult]) -> None:
        self._runs = list(runs)

    @classmethod
    def in_folders(cls, folders: Iterable[Path]) -> Runs:
        """Open the runs in these folders, in the order of their names, as far as there are any.

        Raises:
            ConfigError: there is none.
        """
        begun = sorted(folder for folder in folders if RunFolder(folder).begun)
        if not begun:
            raise ConfigError("the study has no run")
        return cls(RunResult(path) for path in begun)

    @overload
    def __getitem__(self, index: int) -> RunResult: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> RunResult | Runs:
        if isinstance(index, slice):
            return Runs(self._runs[index])
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def with_setting(self, key: str, value: Any) -> Runs:
        """Keep the runs whose configuration has ``value`` at ``key``.

        Args:
            key: dotted, such as ``model.condition``.
            value: a list is written as a tuple; None keeps the runs without the key, too.
        """
        return self.with_settings({key: value})

    def with_settings(self, settings: Mapping[str, Any]) -> Runs:
        """Keep the runs that have all of some values, by dotted key, in their configuration."""
        return Runs(
            run
            for run in self
            if all(read_setting(run, key) == value for key, value in settings.items())
        )

    def grouped_by(self, key: str) -> dict[Any, Runs]:
        """Group the runs by the values there are at ``key``, in ascending order."""
        values = {read_setting(run, key) for run in self}
        return {value: self.with_setting(key, value) for value in sorted(values)}

    @property
    def only_run(self) -> RunResult:
        """The one run there is.

        Raises:
            ConfigError: there are more, or none.
        """
        if len(self) != 1:
            raise ConfigError(f"one run was expected here, and there are {len(self)}")
        return self[0]


# weak: a configuration goes with its run
_CONFIGS: WeakKeyDictionary[RunResult, dict[str, Any]] = WeakKeyDictionary()
_ROWS: WeakKeyDictionary[RunResult, MetricRows] = WeakKeyDictionary()
_PARAMETERS: dict[tuple[str, ...], list[str]] = {}


def read_setting(run: RunResult, key: str) -> Any:
    """Read the value at a dotted key of a run's configuration.

    Args:
        run: any run.
        key: dotted, such as ``model.condition``.

    Returns:
        The value, a list as a tuple; None where there is no such key.
    """
    from truerisk.reports.run_records import read_config

    if run not in _CONFIGS:
        # not OmegaConf, which takes long: a study has hundreds of runs, and many keys are asked for
        _CONFIGS[run] = read_config(run.run)
    node: Any = _CONFIGS[run]
    for name in key.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(name)
    # a tuple can be a key to group by
    if isinstance(node, list):
        return tuple(node)
    return node


def read_metric(run: RunResult, name: str) -> MetricRows:
    """Read what a run logged under a name, in the order of its steps; the first of each step.

    What is measured again at a step, at the end, has other weights or samples.

    Args:
        run: any run.
        name: of the metric, such as ``risk/val``.
    """
    if run not in _ROWS:  # not pandas, which takes ten times as long for a few hundred rows
        _ROWS[run] = read_metric_rows(run.folder)
    return _ROWS[run].select(name)


def read_series(run: RunResult, name: str) -> np.ndarray:
    """Read the values of `read_metric` [n].

    Args:
        run: any run.
        name: of the metric, such as ``risk/val``.
    """
    return read_metric(run, name).value


def load_last_weights(run: RunResult) -> np.ndarray:
    """Load all parameters at the end of training, which need not be the best, as one vector [d]."""

    state = load_checkpoint(run.run.last)["state_dict"]
    # a study has hundreds of runs of one model, whose network takes long to build
    model = (repr(read_setting(run, "model")), *state)
    if model not in _PARAMETERS:
        # in the model's order: a vector without buffers, as an optimizer sees it
        _PARAMETERS[model] = [f"model.{name}" for name, _ in run.network.named_parameters()]
    weights = [state[name].double().flatten() for name in _PARAMETERS[model]]
    return np.concatenate([part.numpy() for part in weights])
