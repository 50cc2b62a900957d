"""Cells are locked before they are worked on, so that launches side by side share them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from truerisk.core.atomic_files import NO_ROOM
from truerisk.logger.label import CELL
from truerisk.run import RunFolder

LOCK_FILE = ".claims"
PULSE = 20.0
"""Seconds between two signs of life."""
SILENCE = 120.0
"""Seconds without one after which a run on another machine counts as dead."""
LOCK_RANGE = 1 << 40
"""Bytes of the file that stand for cells; what it holds has nothing to do with them."""
TELLING = 2.0
"""Seconds in which who has locked a cell has told its name; a full disk keeps it from that."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system that has no locks answers."""
_files: dict[tuple[int, Path], int] = {}
_locked: set[tuple[int, Path]] = set()
_studies: dict[Path, StudyNames] = {}


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
    try:
        if locked:
            _tell_names(locked)
            threading.Thread(target=_renew_status, args=(locked, over), daemon=True).start()
        yield locked
    finally:
        over.set()
        for folder in locked:
            _unlock_folder(folder)


def _lock_folder(folder: Path) -> bool:
    # locks are a process's: within one, the system would give the same byte again and again.
    # The process's number is part of the key, as a fork inherits the set but not the locks.
    key = (os.getpid(), folder.absolute())
    if key in _locked or not _lock_byte(folder):
        return False
    if _is_alive_elsewhere(folder):
        _unlock_byte(folder)
        return False
    _locked.add(key)
    return True


def find_begun(folders: Sequence[Path], empty: bool = False) -> dict[Path, Path]:
    """Find where the runs of cells lie that another command has begun under other names.

    Only the hash at the end of a name is locked, so that under the lock there is one such folder.

    Args:
        folders: of one study, as this command has named them.
        empty: whether one of others counts though it holds nothing yet, as it is locked by them.

    Returns:
        By each of them the folder with the same hash that holds something; itself if none does.
    """
    found = {}
    for folder in folders:
        found[folder] = folder
        if not _holds_files(folder):
            if empty:
                _await_name(folder)
            names = sorted(_read_names(folder.parent).by_hash.get(_hash_of(folder.name), ()))
            others = [folder.with_name(name) for name in names if name != folder.name]
            begun = [path for path in others if _holds_files(path)]
            begun += [path for path in others if empty and path.is_dir()]
            found[folder] = next(iter(begun), folder)
    return found


def _await_name(folder: Path) -> None:
    """Wait until whoever has locked a cell has told under which name."""
    digits, until = _hash_of(folder.name), time.monotonic() + TELLING
    while digits and time.monotonic() < until:
        names = _read_names(folder.parent)
        if names.told.intersection(names.by_hash.get(digits, ())):
            return
        time.sleep(0.005)


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _hash_of(name: str) -> str:
    """Return the hash that the name of a cell's folder ends in; empty for any other name."""
    return name.rpartition("-")[2] if CELL.search(name) else ""


@dataclass
class StudyNames:
    """The names of cells of a study, as far as this process has read them.

    Attributes:
        by_hash: those with the same hash, whether or not there are such folders.
        told: those of them that stand in the study's file.
        size: how many bytes of it have been read.
    """

    by_hash: dict[str, tuple[str, ...]]
    told: set[str] = field(default_factory=set)
    size: int = 0

    def add(self, name: str) -> None:
        """Add a name, if it is a cell's."""
        digits = _hash_of(name)
        names = self.by_hash.get(digits, ())
        if digits and name not in names:
            self.by_hash[digits] = (*names, name)


def _read_names(study: Path) -> StudyNames:
    """Read the names of a study's cells: once all that are there, later what others have told."""
    file, study = _open_file(study / LOCK_FILE), study.absolute()
    size = os.fstat(file).st_size
    if study not in _studies or size < _studies[study].size:  # what they have told is lost
        # not each time: of each cell of a large study it would take longer than the last
        _studies[study] = StudyNames({})
        for name in os.listdir(study):
            _studies[study].add(name)
    names = _studies[study]
    told = os.pread(file, size - names.size, names.size)
    told = told[: told.rfind(b"\n") + 1]
    for name in map(os.fsdecode, told.splitlines()):
        names.add(name)
        names.told.add(name)
    names.size += len(told)
    return names


def _tell_names(folders: Sequence[Path]) -> None:
    """Tell other commands, in the study's file, under which names cells are begun here."""
    # those with folders too: others may have looked at the study before those were made
    told = _read_names(folders[0].parent).told
    new = [f.name for f in folders if _hash_of(f.name) and f.name not in told]
    if not new:
        return
    file = _open_file(folders[0])
    try:
        with _hold_byte(file, LOCK_RANGE + 1):  # network file systems append over one another
            # a line break before each, too: one that was cut short spoils no other
            os.write(file, b"".join(b"\n%b\n" % os.fsencode(name) for name in new))
    except OSError as error:
        if error.errno not in NO_ROOM:  # it is told where the run finds none either
            raise


def _unlock_folder(folder: Path) -> None:
    _locked.discard((os.getpid(), folder.absolute()))
    _unlock_byte(folder)


def _find_byte(folder: Path) -> int:
    """Find the byte that stands for a folder: its name ends in the hash of the configuration."""
    name = folder.name.rpartition("-")[2]
    try:
        return int(name, 16) % LOCK_RANGE
    except ValueError:
        return int.from_bytes(folder.name.encode()[-8:], "big") % LOCK_RANGE


def _open_file(folder: Path) -> int:
    # absolute, as a process may have moved to another folder since
    study = folder.parent.absolute()
    key = (os.getpid(), study)
    # one that somebody has deleted, with its study, is no other process's any more
    if key not in _files or not os.fstat(_files[key]).st_nlink:
        study.mkdir(parents=True, exist_ok=True)
        _studies.pop(study, None)
        # once, and never closed: closing any descriptor of a file gives back all of the process's
        # locks on it (POSIX)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        _files[key] = os.open(study / LOCK_FILE, flags, 0o666)
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


@contextmanager
def _hold_byte(file: int, byte: int) -> Iterator[None]:
    """Wait for a byte and lock it for the length of the block; without locks nobody waits."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        # not where there are no locks, which would be told a second time
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)


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
    return read_server_time(folder) - run.changed() < SILENCE


def read_server_time(folder: Path) -> float:
    """Read the clock that gives files their times.

    Args:
        folder: of a run, in the study whose ``.claims`` is touched for it.
    """
    # a file's time is the file server's; clocks of machines may differ by more than SILENCE
    os.utime(_open_file(folder))
    return os.fstat(_open_file(folder)).st_mtime


def _renew_status(folders: Sequence[Path], over: threading.Event) -> None:
    while not over.wait(PULSE):
        for folder in folders:
            RunFolder(folder).touch()


class Claims(Protocol):
    """What launches that share a database claim of it; all is given back however they end."""

    def alone(self) -> AbstractContextManager[None]:
        """Wait until no other launch is in such a block; what is done there is seen by all."""

    def take(self, key: str) -> bool:
        """Claim what has this key; False where another launch has it."""

    def release(self, key: str) -> None:
        """Give it back."""

    def close(self) -> None:
        """Give back all there is."""


class FileClaims:
    """Claims by locks on bytes of a folder's ``.claims``, as cells have them.

    Args:
        folder: that all launches see; it holds the database, or the log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: dict[str, Path] = {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the byte behind those of cells."""
        with _hold_byte(_open_file(self.folder / LOCK_FILE), LOCK_RANGE):
            yield

    def take(self, key: str) -> bool:
        """Lock the byte that stands for a key."""
        place = self.folder / f"claim-{_hash_key(key).hex()[:10]}"
        if key in self.taken or _lock_folder(place):
            self.taken[key] = place
        return key in self.taken

    def release(self, key: str) -> None:
        """Unlock it."""
        _unlock_folder(self.taken.pop(key))

    def close(self) -> None:
        """Unlock all."""
        for key in list(self.taken):
            self.release(key)


class PostgresClaims:
    """Claims by PostgreSQL's advisory locks: the server gives them back when a connection ends.

    They hold between machines that share nothing but the server.

    Source: PostgreSQL 15 documentation, §13.3.5.

    Args:
        url: of the database, as SQLAlchemy writes it.
    """

    def __init__(self, url: Any) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        # a connection of its own, for the locks are the session's; in no transaction, which would
        # stay open while cells train
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self.connection, self.taken = engine.connect(), set[str]()

    def _call(self, function: str, key: str) -> bool:
        from sqlalchemy import text

        number = int.from_bytes(_hash_key(key), signed=True)
        query = text(f"SELECT {function}(CAST(:number AS bigint))")
        return bool(self.connection.execute(query, {"number": number}).scalar())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the database, whichever study is asked about."""
        self._call("pg_advisory_lock", "alone")
        try:
            yield
        finally:
            self._call("pg_advisory_unlock", "alone")

    def take(self, key: str) -> bool:
        """Take the lock that stands for a key."""
        if key not in self.taken and self._call("pg_try_advisory_lock", key):
            self.taken.add(key)
        return key in self.taken

    def release(self, key: str) -> None:
        """Let go of it."""
        self.taken.remove(key)
        self._call("pg_advisory_unlock", key)

    def close(self) -> None:
        """End the session."""
        self.connection.close()


def _hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:8]
