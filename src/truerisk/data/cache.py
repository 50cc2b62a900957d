"""Arrays that take long to make, kept on disk for the next process."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def remembered(name: str, packages: tuple[str, ...], make: Callable[[], Arrays]) -> Arrays:
    """What ``make`` gives, from the user's cache if it is there.

    Another version of one of the packages makes it anew, and so does a file that cannot be read,
    as its checksums tell. Where nothing can be written, nothing is kept.

    Args:
        name: of the file, among those of this program.
        packages: what it is made with.
        make: makes it.
    """
    path = folder() / f"{name}-{'-'.join(map(version, packages))}.npz"
    try:
        with np.load(path) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, arrays)
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Write the file as a whole, or leave nothing."""
    aside = path.with_suffix(f".{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def folder() -> Path:
    """Where this user's programs keep what can be made again (XDG Base Directory, 2021)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "truerisk"
    try:
        return Path.home() / ".cache" / "truerisk"
    except RuntimeError:  # as for a container's user that the system does not know
        return Path(tempfile.gettempdir()) / "truerisk"
