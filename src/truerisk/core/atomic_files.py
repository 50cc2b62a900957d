"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
        if error.errno is not None:  # one that is no system's would lose its words
            error.filename = error.filename or str(path)
        raise


ZIP_END = 22
"""Bytes of the record that ends a zip archive without a comment."""
DAMAGED: list[Path] = []
"""Files of runs that this process has met lost or broken, for the exit code of a command."""


def find_fault(path: Path, whole: bool = True, start: bytes = b"", least: int = 0) -> str:
    """Say what is wrong with a file by a look at its ends; empty where nothing is.

    Args:
        path: the file.
        whole: whether its last line has an end. A zip archive, as checkpoints are, has its own.
        start: what it begins with.
        least: how many bytes it has, if not more.
    """
    try:
        # a buffer would be filled at both ends
        with path.open("rb", buffering=0) as file:
            head = file.read(max(1, len(start)))
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(ZIP_END, size), os.SEEK_END)
            tail = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except IsADirectoryError:
        return "is a folder"
    if not head:
        return "holds nothing"
    torn = whole and not tail.endswith(b"\n")
    if start == b"PK":
        torn = not tail.startswith(b"PK\x05\x06")
    if (start and head != start) or size < least:
        return "is damaged"
    return "is damaged" * torn


def tell_damage(path: Path, fault: str, then: str) -> None:
    """Tell on stderr that a file of a run is lost or broken; a broken one is put aside.

    Args:
        path: the file.
        fault: what is wrong with it.
        then: what becomes of the run.
    """
    kept = ""
    if path.exists():
        names = [f"damaged-{path.name}", *(f"damaged-{i}-{path.name}" for i in range(2, 1000))]
        aside = next(p for p in map(path.with_name, names) if not p.exists())
        path.rename(aside)
        kept = f"it is kept as {aside.name}, and "
    print(f"{path} {fault}: {kept}{then}", file=sys.stderr)
    DAMAGED.append(path)


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
        # containers that share a folder have the same numbers of processes
        part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")
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


def spell_numbers(content: Any) -> Any:
    """Spell what JSON has no number for: nan as null, and ±∞ in words that ``float`` reads.

    Args:
        content: nested containers.

    >>> spell_numbers({"a": [1.5, float("nan")], "b": -math.inf})
    {'a': [1.5, None], 'b': '-inf'}
    """
    if isinstance(content, Mapping):
        return {key: spell_numbers(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [spell_numbers(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(float(content))
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file (RFC 8259: without NaN or Infinity) as a whole.

    Args:
        path: the file; its folder must exist.
        content: what it will hold.
    """
    write_atomic(path, json.dumps(spell_numbers(content), indent=2, allow_nan=False) + "\n")
