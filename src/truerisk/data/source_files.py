"""What sources share: paths, targets that are missing, and arrays kept for the next process."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from truerisk.core.atomic_files import replacing
from truerisk.core.errors import ConfigError, suggest
from truerisk.task import Task, infer_task

Arrays = dict[str, np.ndarray]


def find_path(path: str | Path | None, key: str, what: str) -> Path:
    """Return a path that a config names, if there is something at it.

    Args:
        path: the value of the key.
        key: as messages name it.
        what: should be there.

    Raises:
        ConfigError: no path is given, or nothing is there; the nearest name is offered.
    """
    if path is None:
        raise ConfigError(f"{key} is not set: give the path of {what}, as in {key}=PATH")
    file = Path(path).expanduser()
    if file.exists():
        return file
    folder = file.parent
    if not folder.is_dir():
        raise ConfigError(f"{key}: there is no folder {folder.absolute()}")
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    # comparing spellings takes time in a folder of thousands
    hint = suggest(file.name, names[:200])
    raise ConfigError(f"{key}: there is no file {file.name} in {folder.absolute()}; {hint}")


UNLABELLED = ("refuse", "drop")


class Labelled(NamedTuple):
    """Targets of the samples that have some.

    Args:
        task: what they ask for.
        values: the targets, without those that are missing.
        rows: which samples they are of; None for all.
        notes: what there is to tell of them, a line each.
    """

    task: Task
    values: np.ndarray
    rows: np.ndarray | None
    notes: list[str]

    def select(self, inputs: Any) -> Any:
        """Return the inputs, or other values a sample, of those samples."""
        if self.rows is None:
            return inputs
        return inputs[self.rows]


def read_labels(
    values: np.ndarray,
    task: str,
    suited: Collection[str],
    unlabelled: str | None,
    key: str = "data.source.y",
    known: bool = False,
) -> Labelled:
    """Find what targets are, and which samples have none: None, NaN, an empty text, perhaps -1.

    Args:
        values: the targets [n] or [n, columns].
        task: its name, or ``auto``.
        suited: tasks that the loss is for.
        unlabelled: what to do about samples without: ``refuse`` or ``drop``; None where that cannot
            be set.
        key: of the targets, for messages.
        known: whether -1 is known to stand for none.

    Raises:
        ConfigError: there are some, and they are refused.
    """
    if unlabelled not in (None, *UNLABELLED):
        hint = suggest(str(unlabelled), UNLABELLED)
        raise ConfigError(f"data.source.unlabelled is '{unlabelled}': {hint}")
    if values.ndim and not len(values):
        raise ConfigError(f"{key}: there are no samples, as the targets have shape {values.shape}")
    lacking, notes = _find_nothing(values), []
    if known and values.dtype.kind in "if":
        lacking |= values < 0
    if lacking.any():
        _refuse_unlabelled(
            lacking, unlabelled, key, "-1" if known else "null, NaN or an empty text"
        )
        values = values[~lacking]
        if values.dtype == object and not any(isinstance(v, list | np.ndarray) for v in values):
            values = np.array(values.tolist())  # numbers without a None among them are numbers
    learned = infer_task(values, task, suited=suited)
    minus = _find_minus_ones(values) if learned.has_classes else None
    if minus is not None and unlabelled == "drop":
        values, kept = values[~minus], np.flatnonzero(~lacking)
        lacking[kept[minus]] = True
    elif minus is not None:
        notes += describe_minus_ones(values, unlabelled)
    if not lacking.any():
        return Labelled(learned, values, None, notes)
    if not len(values):
        raise ConfigError(f"{key}: none of {len(lacking)} samples has a label; choose other data")
    notes.append(f"{int(lacking.sum())} of {len(lacking)} samples have no label and are left out")
    return Labelled(learned, values, np.flatnonzero(~lacking), notes)


def describe_minus_ones(values: np.ndarray, unlabelled: str | None) -> list[str]:
    """Tell of labels -1 beside 0 … K − 1: a line, or none.

    Args:
        values: the labels.
        unlabelled: see `read_labels`.
    """
    minus = _find_minus_ones(values)
    if minus is None:
        return []
    return [
        f"{int(minus.sum())} of {len(minus)} labels are -1, which is taken for a class: "
        f"{_tell_remedy(unlabelled)} if it stands for no label"
    ]


def _tell_remedy(unlabelled: str | None) -> str:
    if unlabelled is None:
        return "leave those samples out"
    return "set data.source.unlabelled=drop"


def _refuse_unlabelled(lacking: np.ndarray, unlabelled: str | None, key: str, spelt: str) -> None:
    if unlabelled != "drop":
        raise ConfigError(
            f"{key}: {int(lacking.sum())} of {len(lacking)} samples have no label ({spelt}): "
            f"{_tell_remedy(unlabelled)}, or choose targets that are known of all"
        )


def _find_nothing(values: np.ndarray) -> np.ndarray:
    """Return which samples have no target, or lack one of several."""
    lacking = np.zeros(values.shape, dtype=bool)
    if values.dtype.kind == "f":
        lacking = np.isnan(values)
    elif values.dtype.kind in "US":
        lacking = values == values.dtype.type()
    elif values.dtype.kind == "O":
        flat = [value is None or value == "" or _is_nan(value) for value in values.ravel()]
        lacking = np.array(flat, dtype=bool)
    return np.asarray(lacking.reshape(len(values), -1).any(1))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _find_minus_ones(values: np.ndarray) -> np.ndarray | None:
    """Return which labels are -1 beside 0 … K - 1, as where it stands for none; None for others."""
    if values.dtype.kind not in "if" or values.ndim != 1:
        return None
    kinds = np.unique(values)
    # -1 and 1 are two classes
    if len(kinds) < 3 or not np.array_equal(kinds, np.arange(-1, len(kinds) - 1)):
        return None
    return values == -1


KEPT_SETS, KEPT_BYTES = 8, 2**25
"""Sets of one name that stay in the user's cache, and the size of the largest."""


def load_or_make(
    name: str, packages: tuple[str, ...], make: Callable[[], Arrays], numbers: Any = ()
) -> Arrays:
    """Load arrays from the user's cache, or make and keep them.

    Another version of one of the packages makes them anew, and so does a file that cannot be read,
    as its checksums tell. Where nothing can be written, nothing is kept; of one name the last
    `KEPT_SETS` are, but for those of more than `KEPT_BYTES`.

    Args:
        name: of the file, among those of this program.
        packages: what the arrays are made with.
        make: makes them.
        numbers: what they are made from, which tells one set of that name from another.
    """
    digest = hashlib.sha256(repr(numbers).encode()).hexdigest()[:12]
    path = cache_folder() / f"{name}-{'-'.join(map(version, packages))}-{digest}.npz"
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        # missing, cut off or spoilt, all of which NumPy tells in its own way
        arrays = make()
    if sum(array.nbytes for array in arrays.values()) > KEPT_BYTES:
        return arrays
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, contended=True) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
        sets = sorted(path.parent.glob(f"{name}-*.npz"), key=lambda file: file.stat().st_mtime_ns)
        for old in sets[:-KEPT_SETS]:
            old.unlink()
    return arrays


def cache_folder() -> Path:
    """Return where programs keep what can be made again (XDG Base Directory, 2021)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "truerisk"
    try:
        return Path.home() / ".cache" / "truerisk"
    except RuntimeError:  # as for a container's user that the system does not know
        return Path(tempfile.gettempdir()) / "truerisk"
