"""Work in a fork of this process, which ends itself by SIGKILL before one of its operations."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Work = Callable[[Path], int | None]
"""Works in a folder, and returns an exit code; the same again goes on with it."""

MADE = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate", "os.symlink")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


READS = ("sql SELECT", "sql PRAGMA")
"""Operations that change nothing: a kill before one is a kill before the next that does."""


class Ended(NamedTuple):
    """How a fork has ended.

    Args:
        killed: whether by the kill that was asked for.
        code: its exit code otherwise; below 0 for a signal.
        operations: what it was about to do, one after another; the kill came before the last one.
    """

    killed: bool
    code: int
    operations: list[str]


class Verdict(NamedTuple):
    """What is wrong with a folder after a fault, and after the same command again."""

    lost: int = 0
    doubled: int = 0
    changed: int = 0


class Tally(NamedTuple):
    """A row of the table: what so many kills have done in all."""

    name: str
    kills: int
    lost: int
    doubled: int
    changed: int
    places: tuple[str, ...] = ()
    """Where something went wrong."""


class _Counter:
    """Counts operations on files below a folder and on databases; at one of them it kills."""

    def __init__(self, folder: Path, at: int, record: Path) -> None:
        self.folder, self.at, self.count = str(folder), at, 0
        self.record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def install(self) -> None:
        """Listen from here on; nothing takes that back but the end of the process."""
        from sqlalchemy import Engine, event

        sys.addaudithook(self.hear)
        event.listen(Engine, "before_cursor_execute", lambda *a: self.take(f"sql {a[2]}"))
        event.listen(Engine, "commit", lambda *a: self.take("commit"))
        event.listen(Engine, "rollback", lambda *a: self.take("rollback"))

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take in what Python says it is about to do."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, str | os.PathLike) or not flags & WRITES:
                return
        elif event in MADE:
            path = arguments[0]
        elif event == "fcntl.lockf":
            return self.take("lock")
        else:
            return None
        text = os.path.abspath(os.fsdecode(path)) if not isinstance(path, int) else self.folder
        if text.startswith(self.folder):
            self.take(f"{event} {text.removeprefix(self.folder)}")
        return None

    def take(self, operation: str) -> None:
        """Count an operation that is about to be done."""
        self.count += 1
        os.write(self.record, " ".join(operation.split()).encode() + b"\n")
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def fork_work(work: Work, folder: Path, name: str = "", at: int = 0) -> tuple[int, Path]:
    """Begin work in a fork.

    Args:
        work: is called with the folder, in which the fork stands.
        folder: is made, and may hold what was left by an earlier one.
        name: tells forks in one folder apart.
        at: the number of the operation before which it is killed; 0 kills nothing.

    Returns:
        Its process, and the file in which it notes its operations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record, said = (
        folder.with_name(f"{folder.name}{name}.{end}") for end in ("operations", "said")
    )
    record.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            # a test's own capture would keep what is printed
            sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
            os.chdir(folder)
            _Counter(folder, at, record).install()
            code = work(folder) or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # not sys.exit: what the parent registered is the parent's
    return child, record


def run_forked(work: Work, folder: Path, at: int = 0) -> Ended:
    """Do work in a fork, and kill it before its ``at``-th operation.

    Args:
        work: is called with the folder, in which the fork stands.
        folder: is made, and may hold what was left by an earlier one.
        at: counted from 1; 0 kills nothing.
    """
    child, record = fork_work(work, folder, at=at)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    operations = record.read_text().splitlines() if record.exists() else []
    killed = bool(at) and code == -signal.SIGKILL and len(operations) == at
    return Ended(killed, code, operations)


def kill_everywhere(
    name: str,
    work: Work,
    judge: Callable[[Path, Path], Verdict],
    place: Path,
    wanted: Callable[[str], bool] = lambda operation: not operation.startswith(READS),
    most: int = sys.maxsize,
) -> Tally:
    """Kill work at each of its operations in turn, do it again, and judge what is left.

    Args:
        name: of the row.
        work: what is killed.
        judge: compares a folder with one in which nothing was killed.
        place: an empty folder for all of this.
        wanted: which operations.
        most: so many of them at most, spread evenly.
    """
    whole = place / "whole"
    first = run_forked(work, whole)
    if first.code:
        raise RuntimeError(f"{name} fails without a kill: {(place / 'whole.said').read_text()}")
    numbers = [i for i, text in enumerate(first.operations, 1) if wanted(text)]
    kills, verdicts, places = 0, [], []
    for at in spread(numbers, most):
        folder = place / str(at)
        ended = run_forked(work, folder, at)
        kills += ended.killed
        again = run_forked(work, folder)
        verdict = judge(folder, whole) if again.code == 0 else Verdict(lost=1)
        verdicts.append(verdict)
        if any(verdict) or not ended.killed:
            # its folder stays, to be looked at
            places.append(f"{at} of {len(first.operations)} ({first.operations[at - 1]})")
        else:
            shutil.rmtree(folder)
    sums = [sum(column) for column in zip(*verdicts, strict=True)] or [0, 0, 0]
    return Tally(name, kills, *sums, places=tuple(places))


def spread(items: Iterable[Item], most: int) -> list[Item]:
    """Return some of the items, as even as can be, the first and the last among them."""
    every = list(items)
    if len(every) <= most:
        return every
    return [every[round(i * (len(every) - 1) / (most - 1))] for i in range(most)]
