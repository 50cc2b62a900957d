"""Groups of cells, trained here or shared out to processes, with one line of progress."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from truerisk.core.errors import FAULTS, Interrupted, format_count, list_own_lines
from truerisk.engine.signals import NOTICE, SIGNALS, end_with_parent, on_stop
from truerisk.engine.stacked.block_size import LARGEST, even_block_size
from truerisk.engine.stacked.grouping import Unstackable
from truerisk.show.progress_line import (
    REFRESH,
    fit_line,
    format_duration,
    format_speed,
    open_live_line,
)
from truerisk.sweeps.launcher.launcher import claim_cells
from truerisk.sweeps.launcher.pool import FORK
from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup
from truerisk.sweeps.sweep_cell import SweepCell, make_cfgs


class GroupProgress:
    """Shows how much of all the cells' runs is done: a live line, or one for every tenth.

    ``place`` tells which of several groups the cells are.
    """

    def __init__(self, cells: int, place: str = "") -> None:
        self.cells, self.taken, self.done = cells, 0, 0.0
        what = format_count(cells, "cell")
        self._what = f"{place}: {what}" if place else what
        self._began = self._drawn = time.monotonic()
        self._tenth = 0
        self._live: Any = open_live_line()

    def count_steps(self, taken: int, done: float) -> None:
        """Count steps that were taken, and by how many whole runs that brings the cells on."""
        self.taken, self.done = self.taken + taken, self.done + done
        if self._live is not None:
            if time.monotonic() - self._drawn >= REFRESH:
                self._draw()
        elif int(10 * self.share) > self._tenth:
            self._tenth = int(10 * self.share)
            print("  ".join(self._format_parts()), file=sys.stderr, flush=True)

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return min(1.0, self.done / self.cells + 1e-9)

    def _format_parts(self) -> list[str]:
        passed = time.monotonic() - self._began
        return [
            f"{self._what}, {self.share:.0%}",
            format_duration(passed),
            format_speed(self.taken, passed),
        ]

    def _draw(self) -> None:
        from rich.text import Text

        self._drawn = time.monotonic()
        line = fit_line(self._format_parts(), self.share, self._live.console.width)
        self._live.update(Text(line, no_wrap=True), refresh=True)

    def close(self) -> None:
        """Leave the last state on the screen, and give the terminal back."""
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None


LOOK = 0.2
"""Seconds between two looks at what the processes have done."""
FEWEST = 8
"""Cells of a group's share, where the group is divided without need."""
STARTS = 3
"""Times a share is begun whose process is killed, as by a system that runs out of memory."""
MOST_CLAIMED = 1024
"""Cells of a group that are claimed at once for each process, or one block where that is larger."""


class ClaimedGroup:
    """Cells that are trained as one, claimed until they are released.

    Args:
        cells: all of the group.

    Attributes:
        waiting: those that are left to train here, each where it has been begun.
        outcomes: of the others, by folder.
        refused: why some of ``waiting`` could not begin, by folder.
        error: what broke the training of those that have not ended.
    """

    def __init__(self, cells: Sequence[SweepCell]) -> None:
        self.cells, self._claim = cells, ExitStack()
        self.waiting, self.outcomes = self._claim.enter_context(claim_cells(cells))
        self.refused: dict[Path, str] = {}
        self.error: BaseException | None = None

    def deal_jobs(self, count: int) -> list[list[GroupJob]]:
        """Deal what is left to train out to at most ``count`` processes."""
        pairs = zip(make_cfgs(self.waiting), self.waiting, strict=True)
        jobs = [
            GroupJob(cfg, cell.folder, {"overrides": list(cell.overrides)}) for cfg, cell in pairs
        ]
        return [jobs[i::count] for i in range(min(count, len(jobs)))]

    def release(self) -> None:
        """Give the claims back."""
        self._claim.close()


def train_groups(
    groups: Sequence[Sequence[SweepCell]], size: int | None, processes: int
) -> Iterator[ClaimedGroup]:
    """Train groups of cells that stack, in this process or in several.

    A large group is claimed in parts, and so shared with other commands.

    Args:
        groups: of cells.
        size: cells trained at once at most; None for what suits the model.
        processes: how many there are. Groups are trained side by side, and those are divided for
            which the others would have to wait.

    Yields:
        Each group when it has ended; its claims are given back when the next one is asked for.

    Raises:
        Interrupted: a signal asked for an end; its name is the message.
    """
    groups = split_large_groups(groups, size, processes)
    if processes > 1 and sum(map(len, groups)) > 1:
        yield from GroupProcesses(groups, size, processes).train_groups()
        return
    for i, cells in enumerate(groups, 1):
        group = ClaimedGroup(cells)
        try:
            _train_here(group, size, f"group {i} of {len(groups)}" if len(groups) > 1 else "")
            yield group
        finally:
            group.release()


def split_large_groups(
    groups: Sequence[Sequence[SweepCell]], size: int | None, processes: int
) -> list[Sequence[SweepCell]]:
    """Split groups into parts that are claimed one after another, those of a group much of a size.

    Args:
        groups: of cells.
        size: cells trained at once at most; None for what suits the model.
        processes: how many there are.
    """
    block = size or LARGEST
    # the system looks through all locks that are held on a file for each further one
    most = processes * block * max(1, MOST_CLAIMED // block)
    parts = []
    for cells in groups:
        count = even_block_size(len(cells), most)
        parts += [cells[i : i + count] for i in range(0, len(cells), count)]
    return parts


def _train_here(group: ClaimedGroup, size: int | None, place: str) -> None:
    for jobs in group.deal_jobs(1):
        progress = GroupProgress(len(jobs), place)
        stacked = StackedGroup(jobs, size, progress.count_steps)
        try:
            stacked.train()
        except Interrupted:
            raise Interrupted(stacked.stop) from None
        except FAULTS as error:
            if isinstance(error, SystemExit) and not list_own_lines(error):
                raise  # a signal's: the job is put back in line
            group.error = error
        finally:
            progress.close()
        group.refused = stacked.refused


@dataclass(eq=False)
class GroupShare:
    """What one process trains of a group.

    Attributes:
        group: whose cells they are.
        jobs: the cells.
        starts: how often it was begun.
        done: by how many whole runs it has brought the cells on.
    """

    group: ClaimedGroup
    jobs: list[GroupJob]
    starts: int = 0
    done: float = 0.0


def count_shares(sizes: Sequence[int], processes: int) -> list[int]:
    """Count the shares that groups are divided into, so that processes end at about one time.

    A small group stays whole, as half a stack takes longer than half the time, unless it is more
    than a process's part of all cells. Others are divided, as one may take far longer than another.

    Args:
        sizes: of the groups, in cells.
        processes: that share them.

    >>> count_shares([8], 2), count_shares([5, 5, 5], 2), count_shares([18, 18, 6], 2)
    ([2], [1, 1, 1], [2, 2, 1])
    """
    parts = [-(-size * processes // sum(sizes)) for size in sizes]
    return [
        min(size, max(part, min(processes, size // FEWEST)))
        for size, part in zip(sizes, parts, strict=True)
    ]


class GroupProcesses:
    """Forked processes, each at a share of a group, with one line of progress.

    Args:
        groups: of cells.
        size: cells trained at once at most; None for what suits the model.
        processes: how many there are at once.
    """

    def __init__(
        self, groups: Sequence[Sequence[SweepCell]], size: int | None, processes: int
    ) -> None:
        self.size, self.processes = size, processes
        sizes = [len(cells) for cells in groups]
        counted = zip(groups, count_shares(sizes, processes), strict=True)
        # the largest shares first: one begun when the others end would be waited for
        self.unclaimed = sorted(counted, key=lambda pair: -len(pair[0]) / pair[1])
        self.waiting: list[GroupShare] = []
        self.running: dict[Any, tuple[BaseProcess, GroupShare]] = {}
        self.stopped = ""
        self.progress = GroupProgress(
            sum(sizes), f"{len(groups)} groups" if len(groups) > 1 else ""
        )

    def train_groups(self) -> Iterator[ClaimedGroup]:
        """Train all groups, and yield each when the last of its shares has ended."""
        held: list[ClaimedGroup] = []
        try:
            with on_stop(self._stop):
                while self.unclaimed or self.waiting or self.running:
                    held += self._begin_shares()
                    self._hear_reports()
                    if self.stopped and not self.running:
                        raise Interrupted(self.stopped)
                    left = [*self.waiting, *(share for _, share in self.running.values())]
                    for group in [g for g in held if all(share.group is not g for share in left)]:
                        yield group
                        held.remove(group)
                        group.release()
        finally:
            self.progress.close()
            for group in held:
                group.release()

    def _begin_shares(self) -> list[ClaimedGroup]:
        """Begin a share in each process that there may be; gives the groups claimed for that."""
        claimed = []
        while len(self.running) < self.processes and not self.stopped:
            if self.waiting:
                self._begin_share(self.waiting.pop(0))
            elif self.unclaimed:
                cells, count = self.unclaimed.pop(0)
                group = ClaimedGroup(cells)
                claimed.append(group)
                self.waiting += [GroupShare(group, jobs) for jobs in group.deal_jobs(count)]
                self.progress.cells -= len(cells) - len(group.waiting)
            else:
                break
        return claimed

    def _begin_share(self, share: GroupShare) -> None:
        # forked: torch and Lightning, imported here already, need not be imported once more in each
        ours, theirs = FORK.Pipe(duplex=False)
        process = FORK.Process(
            target=_train_share, args=(share.jobs, self.size, self.processes, theirs)
        )
        process.start()
        # or the pipe would never end: this process would hold its other end as well
        theirs.close()
        share.starts += 1
        self.running[ours] = process, share

    def _hear_reports(self) -> None:
        """Count the steps that processes report, and take in how they end."""
        ready: list[Any] = multiprocessing.connection.wait(list(self.running), LOOK)
        for pipe in ready:
            process, share = self.running[pipe]
            try:
                report = pipe.recv()
            except (EOFError, OSError):  # in the middle of a report, where it was killed
                del self.running[pipe]
                process.join()
                self._end_share(share, process.exitcode or 0)
                continue
            if isinstance(report, Unstackable):
                share.group.error = report
            elif isinstance(report, dict):
                share.group.refused |= report
            else:
                share.done += report[1]
                self.progress.count_steps(*report)

    def _end_share(self, share: GroupShare, code: int) -> None:
        """Note that a process has ended; one that was killed is followed by another."""
        if code == -signal.SIGKILL and share.starts < STARTS and not self.stopped:
            # its cells go on from their checkpoints, and are counted again
            self.progress.count_steps(0, -share.done)
            share.done = 0.0
            self.waiting.insert(0, share)
        elif code:
            share.group.error = RuntimeError(f"a process of the group ended with exit code {code}")

    def _stop(self, why: str) -> None:
        self.stopped = why
        for process, _ in self.running.values():
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)


def _train_share(jobs: Sequence[GroupJob], size: int | None, count: int, pipe: Any) -> None:
    """Train one process's share, and report through the pipe at most every ``LOOK`` seconds."""
    end_with_parent()
    steps_taken, runs_done, reported = 0, 0.0, time.monotonic()
    if NOTICE is not None:
        signal.signal(NOTICE, signal.SIG_IGN)  # the parent heeds it for all

    def tell(steps: int, runs: float) -> None:
        nonlocal steps_taken, runs_done, reported
        steps_taken += steps
        runs_done += runs
        if time.monotonic() - reported >= LOOK:
            pipe.send((steps_taken, runs_done))
            steps_taken, runs_done, reported = 0, 0.0, time.monotonic()

    group = StackedGroup(jobs, size, tell, count)
    for number in SIGNALS:  # Ctrl-C reaches every process, and is passed on by the parent as well
        signal.signal(number, lambda n, _: group.request_stop(signal.Signals(n).name))
    try:
        group.train()
    except (Interrupted, SystemExit):  # a model may ask for an end, even with code 0
        sys.exit(1)
    except Unstackable as error:
        pipe.send(error)
    pipe.send((steps_taken, runs_done))
    pipe.send(group.refused)
