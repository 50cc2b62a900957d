"""Files that sources read, and arrays that take long to make, kept on disk for the next process."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from truerisk.core.atomic_files import replacing
from truerisk.core.errors import ConfigError, suggest

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


def load_or_make(name: str, packages: tuple[str, ...], make: Callable[[], Arrays]) -> Arrays:
    """Load arrays from the user's cache, or make and keep them.

    Another version of one of the packages makes them anew, and so does a file that cannot be read,
    as its checksums tell. Where nothing can be written, nothing is kept.

    Args:
        name: of the file, among those of this program.
        packages: what the arrays are made with.
        make: makes them.
    """
    path = cache_folder() / f"{name}-{'-'.join(map(version, packages))}.npz"
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        # missing, cut off or spoilt, all of which NumPy tells in its own way
        arrays = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, contended=True) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
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
