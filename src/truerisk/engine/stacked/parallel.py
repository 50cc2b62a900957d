"""A group of cells shared out to processes, with one line of progress."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truerisk.core.errors import Interrupted
from truerisk.engine.signals import NOTICE, SIGNALS, on_stop
from truerisk.engine.stacked.progress import Bar
from truerisk.engine.stacked.train import Group, Job
from truerisk.sweeps.sweep_cell import SweepCell

LOOK = 0.2
"""Seconds between two looks at what the processes have done."""


def trained(
    cells: Sequence[SweepCell], size: int | None, processes: int, place: str = ""
) -> dict[Path, str]:
    """Train cells that stack; gives the reasons of those that could not begin.

    ``place`` tells on the screen which of several groups they are.

    Raises:
        Interrupted: a signal asked for an end; its name is the message.
    """
    jobs = [Job(cell.cfg, cell.folder, {"overrides": list(cell.overrides)}) for cell in cells]
    bar = Bar(len(jobs), place)
    try:
        count = min(processes, len(jobs))
        return _shared(jobs, size, count, bar) if count > 1 else _here(jobs, size, bar)
    finally:
        bar.close()


def _here(jobs: Sequence[Job], size: int | None, bar: Bar) -> dict[Path, str]:
    group = Group(jobs, size, bar.add)
    try:
        group.train()
    except Interrupted:
        raise Interrupted(group.stop) from None
    return group.refused


def _shared(jobs: Sequence[Job], size: int | None, count: int, bar: Bar) -> dict[Path, str]:
    """Every ``count``-th job to each of ``count`` processes, forked with all they need imported."""
    context = multiprocessing.get_context("fork")
    ends = []
    for i in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(jobs[i::count], size, count, theirs))
        process.start()
        theirs.close()
        ends.append((process, ours))
    stopped: list[str] = []

    def stop(why: str) -> None:
        stopped.append(why)
        for process, _ in ends:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)

    with on_stop(stop):
        refused = _heard([ours for _, ours in ends], bar)
        for process, _ in ends:
            process.join()
    if stopped:
        raise Interrupted(stopped[0])
    bad = [process.exitcode for process, _ in ends if process.exitcode]
    if bad:
        raise RuntimeError(f"a process of the group ended with exit code {bad[0]}")
    return refused


def _heard(pipes: list[Any], bar: Bar) -> dict[Path, str]:
    """What the processes tell until they have ended."""
    refused: dict[Path, str] = {}
    while pipes:
        ready: list[Any] = multiprocessing.connection.wait(pipes, LOOK)
        for pipe in ready:
            try:
                told = pipe.recv()
            except EOFError:
                pipes.remove(pipe)
                continue
            if isinstance(told, dict):
                refused |= told
            else:
                bar.add(*told)
    return refused


def _work(jobs: Sequence[Job], size: int | None, count: int, pipe: Any) -> None:
    """One process's share."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    taken, done, told = 0, 0.0, time.monotonic()
    if NOTICE is not None:
        signal.signal(NOTICE, signal.SIG_IGN)  # the parent heeds it for all

    def tell(steps: int, runs: float) -> None:
        nonlocal taken, done, told
        taken, done = taken + steps, done + runs
        if time.monotonic() - told >= LOOK:
            pipe.send((taken, done))
            taken, done, told = 0, 0.0, time.monotonic()

    group = Group(jobs, size, tell, count)
    for number in SIGNALS:  # Ctrl-C reaches every process, and is passed on by the parent as well
        signal.signal(number, lambda n, _: group.request_stop(signal.Signals(n).name))
    try:
        group.train()
    except Interrupted:
        sys.exit(1)
    pipe.send((taken, done))
    pipe.send(group.refused)


def _end_with_parent() -> None:
    """End this process when the one that forked it has been killed, and its claims are gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
