"""What is too long for a row of metrics.csv: arrays beside the figure that is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from truerisk.core.atomic_files import replacing

if TYPE_CHECKING:
    from truerisk.diagnostics.snapshot import Snapshot

Arrays = Mapping[str, np.ndarray]
"""Arrays by name."""


def keep_arrays(snapshot: Snapshot, name: str, **arrays: ArrayLike) -> None:
    """Write a diagnostic's arrays, in the run's first process.

    Args:
        snapshot: the run.
        name: of the file, without its ending.
        arrays: what is written, in place of what was there.
    """
    if snapshot.run.is_first_process:
        write_arrays(locate_arrays(snapshot, name), arrays)


def keep_row(snapshot: Snapshot, name: str, **row: ArrayLike) -> None:
    """Add a row for the present step to a diagnostic's arrays, in the run's first process.

    Args:
        snapshot: the run.
        name: of the file, without its ending.
        row: one entry of each array, all of the shapes of the rows before.
    """
    if snapshot.run.is_first_process:
        path = locate_arrays(snapshot, name)
        write_arrays(path, add_row(read_arrays(path), snapshot.step, **row))


def locate_arrays(snapshot: Snapshot, name: str) -> Path:
    """Name the file of a diagnostic's arrays, beside its figure."""
    return snapshot.run.folder / "figures" / f"{name}.npz"


def write_arrays(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write a .npz file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as part, part.open("wb") as file:
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file; nothing where there is none."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def add_row(arrays: Arrays, step: int, **row: ArrayLike) -> dict[str, np.ndarray]:
    """Append a row, and drop those of later steps, which a killed run may have left.

    Args:
        arrays: of one length, among them ``step``; or none at all.
        step: of the new row.
        row: one entry of each array.

    Returns:
        The arrays with the rows of the steps before, and the new one.

    >>> once = add_row({}, 0, value=[1.0, 2.0])
    >>> twice = add_row(add_row(once, 5, value=[3.0, 4.0]), 3, value=[5.0, 6.0])
    >>> twice["step"].tolist(), twice["value"].tolist()
    ([0, 3], [[1.0, 2.0], [5.0, 6.0]])
    """
    new = {name: np.asarray(value)[None] for name, value in {"step": step, **row}.items()}
    if not arrays:
        return new
    past = arrays["step"] < step
    return {name: np.concatenate([arrays[name][past], value]) for name, value in new.items()}
