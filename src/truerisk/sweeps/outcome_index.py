"""An index of how a study's runs have ended: what is done is skipped without opening its files."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from truerisk import __version__
from truerisk.core.atomic_files import replacing
from truerisk.core.stop import Stop
from truerisk.outcome import Outcome
from truerisk.run import RunFolder
from truerisk.sweeps.locks import read_server_time
from truerisk.sweeps.sweep_cell import DONE, read_outcome

INDEX_FILE = ".outcomes"
GRAIN = 2.0
"""Seconds in which a file can change twice and show one time, on the coarsest file systems."""


class OutcomeIndex:
    """Outcomes of a study's runs that are done, each with a stamp of the files that tell it.

    The stamp is a hash of the files' inodes, sizes and times. Where it still holds, so does the
    outcome; any other run is read from its folder, as all are where the index is lost, torn or of
    another version.

    Args:
        study: the folder, which need not exist.
    """

    def __init__(self, study: Path) -> None:
        self.file = study / INDEX_FILE
        self._known = self._load()
        self._new: dict[str, tuple[Any, ...]] = {}
        self._time: float | None = None

    def read_outcome(self, folder: Path) -> Outcome:
        """Read how a run stands: ``missing`` where it has not begun.

        Args:
            folder: of the run, in the study.
        """
        stamp, changed = _stamp_files(folder)
        known, *fields = self._known.get(folder.name, (None,))
        if known == stamp:
            value, status, reason, stop = fields
            stop = Stop(*stop) if stop else None
            return Outcome(value, status, reason, new=False, stop=stop)
        time = self._time
        if time is None:
            time = self.set_time()
            stamp, changed = _stamp_files(folder)
        # after its stamp: files that change meanwhile get another one
        end = read_outcome(folder)
        # what had just changed then may do so again, and show the same time
        if end.status in DONE and not end.damaged and changed < time - GRAIN:
            self._new[folder.name] = (stamp, end.value, end.status, end.reason, end.stop)
        return end

    def set_time(self) -> float:
        """Note the file server's time: a file that changes later shows no earlier one."""
        self._time = 0.0
        if self.file.parent.is_dir():
            with suppress(OSError):  # where nothing can be written, nothing is to be recorded
                self._time = read_server_time(self.file)
        return self._time

    def write(self) -> None:
        """Record what was read from folders, beside what other commands have recorded meanwhile."""
        if not self._new:
            return
        # line by line: as one text it would take several times the memory
        entries = {**self._load(), **self._new}.items()
        text = "".join(f"{json.dumps([name, *entry])}\n" for name, entry in entries)
        with suppress(OSError), replacing(self.file, durable=True, contended=True) as part:
            part.write_text(f"{_hash_text(text)}\n{text}")

    def _load(self) -> dict[str, tuple[Any, ...]]:
        try:
            digest, _, text = self.file.read_text().partition("\n")
        except (OSError, ValueError):
            return {}
        lines = text.splitlines() if digest == _hash_text(text) else ()
        entries = map(json.loads, lines)
        # names are shared with the paths of cells, and "finished" is kept once
        return {
            sys.intern(name): (stamp, value, sys.intern(status), *rest)
            for name, stamp, value, status, *rest in entries
        }


def _stamp_files(folder: Path) -> tuple[str, float]:
    """Return the stamp of the files that tell a run's outcome, and when one changed last."""
    facts: list[tuple[int, ...]] = []
    changed = 0.0
    for name in RunFolder.TELLING:
        try:
            stat = os.stat(f"{folder}/{name}")  # a path of each file would cost more than the look
        except OSError:
            facts.append(())
        else:
            # of the times, only that of the inode cannot be set back
            facts.append((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
            changed = max(changed, stat.st_ctime)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16], changed


def _hash_text(text: str) -> str:
    # another version may read another outcome from the same files
    return hashlib.sha256(f"{__version__}\n{text}".encode()).hexdigest()
