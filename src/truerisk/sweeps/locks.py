"""Cells are locked before they are worked on, so that launches side by side share them."""

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
LOCK_RANGE = 1 << 40
"""Bytes of the file that can be locked; it stays empty all the same."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system that has no locks answers."""
_files: dict[tuple[int, Path], int] = {}
_locked: set[tuple[int, Path]] = set()


@contextmanager
def lock_cells(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Lock run folders of a study for the length of the block.

    A lock is one on a byte of the study's file ``.claims``, which the system gives back however
    the process ends, and which network file systems pass on to other machines. Where they do not,
    the status file tells: while a cell is worked on, its time is renewed.

    Args:
        folders: of runs, which need not exist yet.

    Yields:
        Those that could be had; the others are worked on elsewhere.
    """
    # not by `filelock`, which would leave a file for each cell behind: thousands in a study
    locked = [folder for folder in folders if _lock_folder(folder)]
    over = threading.Event()
    if locked:
        threading.Thread(target=_renew_status, args=(locked, over), daemon=True).start()
    try:
        yield locked
    finally:
        over.set()
        for folder in locked:
            _locked.discard((os.getpid(), folder))
            _unlock_byte(folder)


def _lock_folder(folder: Path) -> bool:
    # locks are a process's: within one, the system would give the same byte again and again.
    # The process's number is part of the key, as a fork inherits the set but not the locks.
    key = (os.getpid(), folder)
    if key in _locked or not _lock_byte(folder):
        return False
    if _is_alive_elsewhere(folder):
        _unlock_byte(folder)
        return False
    _locked.add(key)
    return True


def _find_byte(folder: Path) -> int:
    """Find the byte that stands for a folder: its name ends in the hash of the configuration."""
    name = folder.name.rpartition("-")[2]
    try:
        return int(name, 16) % LOCK_RANGE
    except ValueError:
        return int.from_bytes(folder.name.encode()[-8:], "big") % LOCK_RANGE


def _open_file(folder: Path) -> int:
    key = (os.getpid(), folder.parent)
    if key not in _files:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # once, and never closed: closing any descriptor of a file gives back all of the process's
        # locks on it (POSIX)
        _files[key] = os.open(folder.parent / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    return _files[key]


def _lock_byte(folder: Path) -> bool:
    try:
        fcntl.lockf(_open_file(folder), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _find_byte(folder))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in NO_LOCKS:
            raise
    return True


def _unlock_byte(folder: Path) -> None:
    try:
        fcntl.lockf(_open_file(folder), fcntl.LOCK_UN, 1, _find_byte(folder))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def cluster_job() -> str:
    """Name the cluster job this process belongs to; put back in line, it keeps its number."""
    return os.environ.get("SLURM_JOB_ID", "")


def _is_alive_elsewhere(folder: Path) -> bool:
    """Tell whether a machine that shares files but no locks has given a sign of life lately."""
    run = RunFolder(folder)
    record = run.status()
    if record.get("status") != "running" or record.get("host") == socket.gethostname():
        return False
    if cluster_job() and record.get("job") == cluster_job():
        return False
    return _read_server_time(folder) - run.changed() < SILENCE


def _read_server_time(folder: Path) -> float:
    # a file's time is the file server's; clocks of machines may differ by more than SILENCE
    os.utime(_open_file(folder))
    return os.fstat(_open_file(folder)).st_mtime


def _renew_status(folders: Sequence[Path], over: threading.Event) -> None:
    while not over.wait(PULSE):
        for folder in folders:
            RunFolder(folder).touch()
