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


def runs_in(folders: Iterable[str | Path]) -> list[RunResult]:
    """The runs in the folders given: each a run's own, or a sweep's with its runs below it.

    Raises:
        ConfigError: a folder holds no run of a test function.
    """
    from truerisk.result import RunResult

    found: list[RunResult] = []
    for folder in map(Path, folders):
        inner = sorted(folder.glob(f"*/{RunFolder.CONFIG}"), key=_number)
        own = RunFolder(folder).config
        files = [own] if own.exists() else inner
        runs = [RunResult(file.parent) for file in files]
        runs = [r for r in runs if r.task == "function" and r.run.metrics.exists()]
        if not runs:
            raise ConfigError(f"contour: {folder} holds no run of a test function (data=none)")
        found += runs
    return found


def _number(file: Path) -> tuple[int, str]:
    """A sort key for a sweep's jobs: 2 comes before 10."""
    name = file.parent.name
    return (int(name) if name.isdecimal() else -1, name)


def function_of(run: RunResult) -> Function:
    """The function a run minimised, in double precision."""
    from torch import float64

    from truerisk.assemble import build

    return build(run.config.model, dtype=float64)


def identity(run: RunResult) -> str:
    """What two runs of the same function have in common: all of the model but its start."""
    model = {key: value for key, value in run.config.model.items() if key != "start"}
    return f"{option_name(run.config, 'model')} {sorted(model.items(), key=str)}"


def trajectory(run: RunResult, function: Function, label: str) -> Trajectory:
    """Read a run's path."""
    history = run.history.drop_duplicates(["step", "name"], keep="first")
    values = history.pivot(index="step", columns="name", values="value")
    names = [f"w/{i}" for i in range(function.size)]
    if set(names) <= set(values.columns):
        kept = values[names].dropna()
        points = kept.to_numpy(dtype=float)
        return Trajectory(label, kept.index.to_numpy(), points, at(function, points), run.status)
    kept = values["risk/val"].dropna() if "risk/val" in values else values.iloc[:0, 0]
    none = np.empty((len(kept), 0))
    return Trajectory(label, kept.index.to_numpy(), none, kept.to_numpy(dtype=float), run.status)


def at(function: Function, points: np.ndarray) -> np.ndarray:
    """The function's value at points [..., d]."""
    import torch

    with torch.no_grad():
        return function.value(torch.tensor(points)).numpy()


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each run: its optimizer, and where those are alike what else differs.

    >>> gd = {"choices": {"optimizer": "gd"}, "optimizer": {"lr": 0.1}}
    >>> labels([gd, {"choices": {"optimizer": "adam"}, "optimizer": {"lr": 0.01}}])
    ['gd', 'adam']
    >>> labels([gd, {"choices": {"optimizer": "gd"}, "optimizer": {"lr": 0.2}}])
    ['gd, lr 0.1', 'gd, lr 0.2']
    """
    names = [option_name(config, "optimizer") or "run" for config in configs]
    leaves = [dict(_leaves(config)) for config in configs]
    found = []
    for name, mine in zip(names, leaves, strict=True):
        rivals = [other for n, other in zip(names, leaves, strict=True) if n == name]
        keys = [k for k in mine if any(o.get(k) != mine[k] for o in rivals)]
        told = [f"{k.rpartition('.')[2]} {mine[k]}" for k in keys if not k.startswith("choices.")]
        found.append(", ".join([name, *told[:2]]))
    again = Counter(found)
    return [f"{n} ({i})" if again[n] > 1 else n for i, n in enumerate(found, 1)]


def _leaves(node: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(node)
