"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        yield part
        put_in_place(part, path, durable=durable)
    # Ctrl-C while writing must leave no torn file behind either
    except BaseException:
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
