"""The paths that runs took through the space of a test function's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from truerisk.core.errors import ConfigError
from truerisk.logger.label import option_name
from truerisk.run import RunFolder
from truerisk.task import get_task

if TYPE_CHECKING:
    from truerisk.model import Function
    from truerisk.result import RunResult


class Trajectory(NamedTuple):
    """One run's way down: its name, and after each step the weights and the function's value."""

    label: str
    step: np.ndarray
    points: np.ndarray
    """[steps, d], or [steps, 0] where there are too many dimensions to keep"""
    value: np.ndarray
    status: str


def find_runs(folders: Iterable[str | Path]) -> list[RunResult]:
    """Find the runs in the folders given: each a run's own, or a sweep's with its runs below it.

    Raises:
        ConfigError: a folder holds no run of a test function.
    """
    from truerisk.result import RunResult

    found: list[RunResult] = []
    for folder in map(Path, folders):
        files = [RunFolder(folder).config]
        if not files[0].exists():
            files = sorted(folder.glob(f"*/{RunFolder.CONFIG}"), key=_job_number)
        runs = [RunResult(file.parent) for file in files]
        runs = [r for r in runs if not get_task(r.task).has_samples and r.run.metrics.exists()]
        if not runs:
            raise ConfigError(f"contour: {folder} holds no run of a test function (data=none)")
        found += runs
    return found


def _job_number(file: Path) -> tuple[int, str]:
    """Make a sort key for a sweep's jobs, by which 2 comes before 10."""
    name = file.parent.name
    if name.isdecimal():
        return int(name), name
    return -1, name


def build_function(run: RunResult) -> Function:
    """Build the function that a run minimised, in double precision."""
    from torch import float64

    from truerisk.assemble import build

    return build(run.config.model, dtype=float64)


def identify_function(run: RunResult) -> str:
    """Say what two runs of the same function have in common: all of the model but its start."""
    model = {key: value for key, value in run.config.model.items() if key != "start"}
    return f"{option_name(run.config, 'model')} {sorted(model.items(), key=str)}"


def read_trajectory(run: RunResult, function: Function, label: str) -> Trajectory:
    """Read a run's path from its history.

    Args:
        run: of a test function.
        function: that function; values are those at the weights that were logged.
        label: the path's name.
    """
    # what is measured once more at the end, at the best weights, is not on the path
    history = run.history.drop_duplicates(["step", "name"], keep="first")
    table = history.pivot(index="step", columns="name", values="value")
    names = [f"w/{i}" for i in range(function.size)]
    if set(names) <= set(table.columns):
        weights = table[names].dropna()
        points = weights.to_numpy(dtype=float)
        # in double precision, also where the run had less or measured less often
        values = evaluate_function(function, points)
        return Trajectory(label, weights.index.to_numpy(), points, values, run.status)
    risks = table.reindex(columns=["risk/val"])["risk/val"].dropna()
    no_points = np.empty((len(risks), 0))
    values = risks.to_numpy(dtype=float)
    return Trajectory(label, risks.index.to_numpy(), no_points, values, run.status)


def evaluate_function(function: Function, points: np.ndarray) -> np.ndarray:
    """Evaluate a function at points [..., d]; returns its values [...].

    Args:
        function: of d variables.
        points: its variables [..., d].
    """
    import torch

    with torch.no_grad():
        return function.value(torch.tensor(points)).numpy()


def label_runs(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each run by its optimizer, and where those are alike by what else differs.

    >>> gd = {"choices": {"optimizer": "gd"}, "optimizer": {"lr": 0.1}}
    >>> label_runs([gd, {"choices": {"optimizer": "adam"}, "optimizer": {"lr": 0.01}}])
    ['gd', 'adam']
    >>> label_runs([gd, {"choices": {"optimizer": "gd"}, "optimizer": {"lr": 0.2}}])
    ['gd, lr 0.1', 'gd, lr 0.2']
    """
    names = [option_name(config, "optimizer") or "run" for config in configs]
    leaves = [dict(_iterate_leaves(config)) for config in configs]
    labels = []
    for name, values in zip(names, leaves, strict=True):
        rivals = [other for n, other in zip(names, leaves, strict=True) if n == name]
        keys = [k for k in values if any(other.get(k) != values[k] for other in rivals)]
        # the name of an option says less than the numbers it stands for
        keys = [k for k in keys if not k.startswith("choices.")]
        details = [f"{k.rpartition('.')[2]} {values[k]}" for k in keys]
        # two differences tell runs apart; more do not fit beside a path
        labels.append(", ".join([name, *details[:2]]))
    counts = Counter(labels)
    return [f"{label} ({i})" if counts[label] > 1 else label for i, label in enumerate(labels, 1)]


def _iterate_leaves(node: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        yield key, str(node)
        return
    for name, value in node.items():
        yield from _iterate_leaves(value, f"{key}.{name}".lstrip("."))
