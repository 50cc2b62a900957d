"""Studies in several processes: the parent, a worker, or all of them killed while they train."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.kills import Tally, Verdict, Work, fork_work, run_forked
from benchmarks.faults.stacked_ends import judge_stack
from benchmarks.faults.tuning import SMALL
from truerisk.run import RunFolder

CELLS = [
    *("data=iris", "model.width=16", "trainer.max_epochs=24", "regularizer=[dropout]"),
    *("threads=1", "study=s", "report=false", "figures=false", "checkpoint_seconds=0"),
    "seed=range(6)",
]
LAUNCHERS = {
    "a pool": ["hydra/launcher=pool", "hydra.launcher.slots=2"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "two stacks": ["hydra/launcher=vectorized", "hydra.launcher.processes=2"],
}
THOUSAND = [
    *SMALL,
    *("checkpoint_seconds=0", "seed=range(1000)", "trainer.max_epochs=3"),
    *("hydra/launcher=vectorized", "hydra.launcher.processes=2"),
]
PATIENCE = 10.0
"""Seconds that workers may outlive their parent."""

Choice = Callable[[int, Path], Sequence[int]]
"""Chooses whom to kill, of the processes that a command has begun in a folder."""


def train_alone(line: Sequence[str]) -> Work:
    """Return the work of a command in a session of its own, by which its processes are found."""
    from truerisk.cli import main

    def work(folder: Path) -> int | None:
        os.setsid()
        return main(["train", "-m", *line])

    return work


def list_session(session: int) -> list[int]:
    """List the processes of a session that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # behind the name, which may hold blanks: state, parent, group, session
            state, _, _, its = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
            if int(its) == session and state != "Z":
                found.append(int(entry.name))
    return found


def choose_parent(parent: int, folder: Path) -> Sequence[int]:
    """Choose the command itself, which all others are to follow."""
    return [parent]


def choose_worker(parent: int, folder: Path) -> Sequence[int]:
    """Choose a process that trains; none if the command does so itself just then."""
    # a cell that was just claimed has an empty status
    pids = [RunFolder(cell).status().get("pid") for cell in folder.glob("outputs/s/*/")]
    return [pid for pid in list_session(parent) if pid in pids and pid != parent][:1]


def choose_all(parent: int, folder: Path) -> Sequence[int]:
    """Choose whatever belongs to the command."""
    return list_session(parent)


WHOM: dict[str, Choice] = {"parent": choose_parent, "worker": choose_worker, "all": choose_all}


def count_rows(folder: Path) -> int:
    """Count rows that the runs have recorded by now."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("outputs/s/*/metrics.csv"))


def kill_at_rows(work: Work, folder: Path, rows: int, choose: Choice) -> tuple[int, int]:
    """Begin a command, kill some of its processes once so many rows are there, and wait.

    Returns:
        Processes that were killed, and those that outlived a dead parent.
    """
    child, _ = fork_work(work, folder)
    while count_rows(folder) < rows and not _has_ended(child):
        time.sleep(0.002)
    chosen = choose(child, folder)
    for pid in chosen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    until = time.monotonic() + PATIENCE
    while (left := list_session(child)) and time.monotonic() < until:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return len(chosen), len(left)


def _has_ended(child: int) -> bool:
    ended, _ = os.waitpid(child, os.WNOHANG)
    return ended == child


def kill_one_by_one(
    name: str, line: Sequence[str], who: str, place: Path, moments: int, rounds: int = 1
) -> Tally:
    """Kill a study's processes at moments that are even in its rows, and give the command again.

    Args:
        name: of the row.
        line: the command's arguments.
        who: of `WHOM`.
        place: an empty folder for all of this.
        moments: how many.
        rounds: moments that hit one and the same study, before it is left to end.
    """
    work, whole = train_alone(line), place / "whole"
    if run_forked(work, whole).code:
        raise RuntimeError(f"{name}: {(place / 'whole.said').read_text()}")
    kills, verdicts, places = 0, [], []
    total = count_rows(whole)
    every = [1 + total * i // moments for i in range(moments)]
    for first in range(0, moments, rounds):
        folder, left = place / str(first), 0
        for rows in every[first : first + rounds]:
            killed, outlived = kill_at_rows(work, folder, rows, WHOM[who])
            kills, left = kills + (killed > 0), left + outlived
        again = run_forked(work, folder)
        # a worker that goes on alone holds the claims of its cells
        verdict = Verdict(lost=1) if again.code or left else judge_stack(folder, whole)
        verdicts.append(verdict)
        if any(verdict):
            places.append(f"{name}, {who}: row {every[first]} of {total}, {left} outlived")
    sums = [sum(column) for column in zip(*verdicts, strict=True)]
    return Tally(f"{name}, {who} killed", kills, *sums, places=tuple(places))


def tallies(place: Path, quick: bool) -> Iterator[Tally]:
    """Kill three launchers' parents, workers and all; then a thousand stacked cells five times."""
    from truerisk.sweeps.launcher.pool import warm_up

    warm_up()
    moments = 2 if quick else 10
    for name, options in LAUNCHERS.items():
        for who in WHOM:
            where = place / f"{name}-{who}"
            yield kill_one_by_one(name, [*CELLS, *options], who, where, moments)
    yield kill_one_by_one("1,000 stacked cells", THOUSAND, "all", place / "many", 5, rounds=5)
