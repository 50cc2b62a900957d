"""A group of cells shared out to processes, with one line of progress."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truerisk.core.errors import Interrupted
from truerisk.engine.signals import NOTICE, SIGNALS, end_with_parent, on_stop
from truerisk.show.progress_line import (
    REFRESH,
    fit_line,
    format_duration,
    format_speed,
    open_live_line,
)
from truerisk.sweeps.launcher.stacked_group import GroupJob, StackedGroup
from truerisk.sweeps.sweep_cell import SweepCell


class GroupProgress:
    """Shows how much of all the cells' runs is done: a live line, or one for every tenth.

    ``place`` tells which of several groups the cells are.
    """

    def __init__(self, cells: int, place: str = "") -> None:
        self.cells, self.taken, self.done = cells, 0, 0.0
        self._what = f"{place}: {cells} cells" if place else f"{cells} cells"
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


def train_group(
    cells: Sequence[SweepCell], size: int | None, processes: int, place: str = ""
) -> dict[Path, str]:
    """Train cells that stack, in this process or in several.

    Args:
        cells: those of one group.
        size: cells trained at once at most; None for what suits the model.
        processes: how many share the cells.
        place: which of several groups they are, for the screen.

    Returns:
        The reasons of the cells that could not begin, by folder.

    Raises:
        Interrupted: a signal asked for an end; its name is the message.
    """
    jobs = [GroupJob(cell.cfg, cell.folder, {"overrides": list(cell.overrides)}) for cell in cells]
    progress = GroupProgress(len(jobs), place)
    count = min(processes, len(jobs))
    try:
        if count > 1:
            return _train_in_processes(jobs, size, count, progress)
        return _train_here(jobs, size, progress)
    finally:
        progress.close()


def _train_here(
    jobs: Sequence[GroupJob], size: int | None, progress: GroupProgress
) -> dict[Path, str]:
    group = StackedGroup(jobs, size, progress.count_steps)
    try:
        group.train()
    except Interrupted:
        raise Interrupted(group.stop) from None
    return group.refused


def _train_in_processes(
    jobs: Sequence[GroupJob], size: int | None, count: int, progress: GroupProgress
) -> dict[Path, str]:
    """Give every ``count``-th job to each of ``count`` forked processes, and wait for them."""
    # forked: torch and Lightning, imported here already, need not be imported once more in each
    context = multiprocessing.get_context("fork")
    ends = []
    for i in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_train_share, args=(jobs[i::count], size, count, theirs))
        process.start()
        # or the pipe would never end: this process would hold its other end as well
        theirs.close()
        ends.append((process, ours))
    stopped: list[str] = []

    def stop(why: str) -> None:
        stopped.append(why)
        for process, _ in ends:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)

    with on_stop(stop):
        refused = _collect_reports([ours for _, ours in ends], progress)
        for process, _ in ends:
            process.join()
    if stopped:
        raise Interrupted(stopped[0])
    bad = [process.exitcode for process, _ in ends if process.exitcode]
    if bad:
        raise RuntimeError(f"a process of the group ended with exit code {bad[0]}")
    return refused


def _collect_reports(pipes: list[Any], progress: GroupProgress) -> dict[Path, str]:
    """Count the steps that the processes report until they have ended, and return the refusals."""
    refused: dict[Path, str] = {}
    while pipes:
        ready: list[Any] = multiprocessing.connection.wait(pipes, LOOK)
        for pipe in ready:
            try:
                report = pipe.recv()
            except EOFError:
                pipes.remove(pipe)
                continue
            if isinstance(report, dict):
                refused |= report
            else:
                progress.count_steps(*report)
    return refused


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
    pipe.send((steps_taken, runs_done))
    pipe.send(group.refused)
