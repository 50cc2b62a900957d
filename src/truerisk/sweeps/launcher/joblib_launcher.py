"""Cells side by side in joblib's workers."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from truerisk.core.errors import ConfigError
from truerisk.engine.signals import SIGNALS
from truerisk.outcome import INTERRUPTED, Outcome
from truerisk.sweeps.launcher.launcher import CellWork, Launcher, end_with_parent, tell_lost
from truerisk.sweeps.sweep_cell import SweepCell

_stopped: list[str] = []
"""In a worker: the signal that it was sent, after which it begins no other cell."""


class JoblibLauncher(Launcher):
    """``hydra/launcher=joblib``: as many cells at once as ``n_jobs`` says.

    Args:
        options: of `joblib.Parallel`, by its names. Workers are always processes (loky's): Hydra's
            state is one a process.
    """

    passes_signals = True

    def __init__(self, **options: Any) -> None:
        if options.pop("backend", None) not in (None, "loky"):
            raise ConfigError("hydra.launcher.backend: cells run in joblib's loky workers; null")
        for key in ("pre_dispatch", "batch_size", "max_nbytes"):
            if str(options.get(key)).isdecimal():  # else joblib reads a text: 2*n_jobs, auto, 1M
                options[key] = int(options[key])
        self.options = options

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run the cells in workers, which end with this process."""
        import joblib

        left = {work.number: work.cell for work in works}
        watch = {"initializer": begin_worker, "initargs": (os.getpid(),)}
        options = {**self.options, **watch, "return_as": "generator_unordered"}
        try:
            joblib.effective_n_jobs(self.options.get("n_jobs"))
            parallel = joblib.Parallel(**options, backend="loky")
        except (TypeError, ValueError) as error:
            raise ConfigError(f"hydra.launcher: joblib says: {error}") from error
        tasks = (joblib.delayed(run_work)(work) for work in works if not self.stopped)
        try:
            for number, outcome in parallel(tasks):
                yield left.pop(number), outcome
        except Exception as error:  # a worker was lost, and joblib ends the others
            yield from [(cell, tell_lost(cell, error)) for cell in left.values()]

    def stop_cells(self, name: str) -> None:
        """Pass a signal on to the workers: every cell saves itself."""
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.Signals[name])


def begin_worker(parent: int) -> None:
    """Set a worker up: it ends with its parent, which alone hears of Ctrl-C and passes it on."""
    from truerisk.show.progress_line import silence_progress

    os.setpgrp()
    end_with_parent(parent)
    silence_progress()  # several lines would overwrite each other
    for number in SIGNALS:  # a cell that is at work has handlers of its own
        signal.signal(number, lambda n, _: _stopped.append(signal.Signals(n).name))


def run_work(work: CellWork) -> tuple[int, Outcome]:
    """Run a cell, in a worker; gives its number and outcome, for an error too."""
    try:
        if not _stopped:
            return work.number, work()
    except SystemExit as end:  # the cell has saved itself
        _stopped.append(next(name for name, code in INTERRUPTED.items() if code == end.code))
    except Exception as error:
        return work.number, tell_lost(work.cell, error)
    return work.number, Outcome(math.nan, "interrupted", _stopped[0])
