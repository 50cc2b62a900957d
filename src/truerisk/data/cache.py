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

    Args:
        name: of the file, among those of this program.
        packages: what it is made with.
        make: makes it.

    Another version of one of the packages makes it anew, and so does a file that
    cannot be read (its parts carry checksums). Where nothing can be written, nothing is kept.
    """
    path = folder() / f"{name}-{'-'.join(map(version, packages))}.npz"
    try:
        with np.load(path) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.part")
        with aside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        aside.replace(path)
    return arrays


def folder() -> Path:
    """Where this user's programs keep what can be made again (XDG Base Directory, 2021)."""
    try:
        home = Path.home()
    except RuntimeError:  # as for a container's user that the system does not know
        home = Path(tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "truerisk"
