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

from truerisk.core.atomic_files import replacing

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
        with replacing(path, contended=True) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    return arrays


def folder() -> Path:
    """Where this user's programs keep what can be made again (XDG Base Directory, 2021)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "truerisk"
    try:
        return Path.home() / ".cache" / "truerisk"
    except RuntimeError:  # as for a container's user that the system does not know
        return Path(tempfile.gettempdir()) / "truerisk"
