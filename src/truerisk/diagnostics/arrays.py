"""What is too long for a row of metrics.csv: arrays beside the figure that is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from truerisk.core.files import replacing

if TYPE_CHECKING:
    from truerisk.diagnostics.moment import Moment

Arrays = Mapping[str, np.ndarray]


def keep(moment: Moment, name: str, **arrays: ArrayLike) -> None:
    """Write a diagnostic's arrays; the run's first process does."""
    if moment.module.trainer.is_global_zero:
        save(beside(moment, name), arrays)


def keep_row(moment: Moment, name: str, **row: ArrayLike) -> None:
    """Add a row for the present step; what a killed run left of later ones is dropped."""
    if moment.module.trainer.is_global_zero:
        path = beside(moment, name)
        save(path, added(load(path), moment.step, **row))


def beside(moment: Moment, name: str) -> Path:
    """Where a diagnostic's arrays are, beside its figure."""
    return Path(moment.module.trainer.default_root_dir) / "figures" / f"{name}.npz"


def save(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write a .npz file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as part, part.open("wb") as file:
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def load(path: Path) -> dict[str, np.ndarray]:
    """Read it; nothing where there is none."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def added(arrays: Arrays, step: int, **row: ArrayLike) -> dict[str, np.ndarray]:
    """The rows of the steps before one, and a row for it.

    >>> once = added({}, 0, value=[1.0, 2.0])
    >>> twice = added(added(once, 5, value=[3.0, 4.0]), 3, value=[5.0, 6.0])
    >>> twice["step"].tolist(), twice["value"].tolist()
    ([0, 3], [[1.0, 2.0], [5.0, 6.0]])
    """
    new = {name: np.asarray(value)[None] for name, value in {"step": step, **row}.items()}
    if not arrays:
        return new
    past = arrays["step"] < step
    return {name: np.concatenate([arrays[name][past], value]) for name, value in new.items()}
