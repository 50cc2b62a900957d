"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a system answers where a file cannot be written for want of room, or of a working disk."""


def describe_file_error(error: OSError, path: Path) -> str:
    """Say in one line which file could not be written, and why.

    Args:
        error: as it was raised.
        path: what was to be written, where the error names no file.
    """
    return f"cannot write {error.filename or path}: {error.strerror or error}"


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Name a file in an error met while writing to it, which a system leaves to the caller."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def part_path(path: Path) -> Path:
    """Name the file beside ``path`` that is written before it is renamed."""
    return path.with_name(f"{path.name}.part")


@contextmanager
def replacing(path: Path, *, durable: bool = False, contended: bool = False) -> Iterator[Path]:
    """Replace a file as a whole: write to the path that is yielded, which is then renamed.

    A reader meets the old file or the new one, and so does whoever comes after a killed process.
    Where the block raises, the old file stays and nothing lies beside it.

    Args:
        path: the file; its folder must exist.
        durable: flush to disk before renaming, so that a power cut spares the file too.
        contended: whether other processes may write the same file at the same time.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
    [('a.txt', 'whole')]
    """
    part = part_path(path)
    if contended:
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with naming_file(path):
            yield part
            put_in_place(part, path, durable=durable)
    # Ctrl-C while writing must leave no torn file behind either
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def put_in_place(part: Path, path: Path, *, durable: bool = False) -> None:
    """Rename a written file to ``path``, which is replaced if it is there.

    Args:
        part: a file in the same folder.
        path: its final name.
        durable: flush to disk first.
    """
    if durable:
        # a rename may reach the disk before what was written
        with part.open("r+b") as file:
            os.fsync(file.fileno())
    # atomic on one file system only, and hence a part in the same folder
    os.replace(part, path)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file as a whole, flushed to disk.

    Args:
        path: the file; its folder must exist.
        text: all that it will hold.
    """
    with replacing(path, durable=True) as part:
        part.write_text(text)
