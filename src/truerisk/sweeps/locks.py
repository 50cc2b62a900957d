"""Cells are claimed before they are worked on, so that launches side by side share them."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from truerisk.run import RunFolder

LOCK_FILE = ".claims"
PULSE = 20.0
"""Seconds between two signs of life."""
SILENCE = 120.0
"""Seconds without one after which a run on another machine counts as dead."""
RANGE = 1 << 40
_files: dict[tuple[int, Path], int] = {}
_held: set[tuple[int, Path]] = set()


@contextmanager
def lock_cells(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Claim run folders of a study for the length of the block; gives those that could be had.

    A claim is a lock on one byte of the study's file ``.claims``, which the system gives back
    however the process ends, and which network file systems pass on to other machines. Where they
    do not, the status file tells: while a cell is worked on, its time is renewed.
    """
    mine = [folder for folder in folders if _take(folder)]
    over = threading.Event()
    if mine:
        threading.Thread(target=_pulse, args=(mine, over), daemon=True).start()
    try:
        yield mine
    finally:
        over.set()
        for folder in mine:
            _held.discard((os.getpid(), folder))
            _unlock(folder)


def _take(folder: Path) -> bool:
    key = (os.getpid(), folder)
    if key in _held or not _lock(folder):
        return False
    if _elsewhere(folder):
        _unlock(folder)
        return False
    _held.add(key)
    return True


def _place(folder: Path) -> int:
    """The byte that stands for a folder: its name ends in the hash of the configuration."""
    name = folder.name.rpartition("-")[2]
    try:
        return int(name, 16) % RANGE
    except ValueError:
        return int.from_bytes(folder.name.encode()[-8:], "big") % RANGE


def _file(folder: Path) -> int:
    """The study's file, opened once: closing it anywhere in a process gives back all its locks."""
    key = (os.getpid(), folder.parent)
    if key not in _files:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _files[key] = os.open(folder.parent / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    return _files[key]


def _lock(folder: Path) -> bool:
    try:
        fcntl.lockf(_file(folder), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(folder))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def _unlock(folder: Path) -> None:
    try:
        fcntl.lockf(_file(folder), fcntl.LOCK_UN, 1, _place(folder))
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def cluster_job() -> str:
    """The cluster job this process belongs to; it keeps its number when it is put back in line."""
    return os.environ.get("SLURM_JOB_ID", "")


def _elsewhere(folder: Path) -> bool:
    """Whether a machine that shares files but no locks has given a sign of life lately."""
    run = RunFolder(folder)
    record = run.status()
    if record.get("status") != "running" or record.get("host") == socket.gethostname():
        return False
    if cluster_job() and record.get("job") == cluster_job():
        return False
    return _now(folder) - run.changed() < SILENCE


def _now(folder: Path) -> float:
    """The file server's time, whatever this machine's clock says."""
    os.utime(_file(folder))
    return os.fstat(_file(folder)).st_mtime


def _pulse(folders: Sequence[Path], over: threading.Event) -> None:
    while not over.wait(PULSE):
        for folder in folders:
            RunFolder(folder).touch()
