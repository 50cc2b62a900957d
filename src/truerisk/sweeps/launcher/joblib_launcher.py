"""Cells side by side in joblib's workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from truerisk.core.errors import ConfigError
from truerisk.engine.signals import end_with_parent
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import (
    CellWork,
    Launcher,
    SerialLauncher,
    WorkShare,
    note_signals,
    tell_lost,
)
from truerisk.sweeps.run_cell import REFUSALS
from truerisk.sweeps.sweep_cell import SweepCell


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
    REFUSALS.left = True
    silence_progress()  # several lines would overwrite each other
    note_signals()


def run_work(work: CellWork) -> tuple[int, Outcome]:
    """Run a cell, in a worker; gives its number and outcome, for an error too."""
    try:
        (outcome,) = WorkShare([work], SerialLauncher()).run_until_stopped()
    except Exception as error:
        outcome = tell_lost(work.cell, error)
    return work.number, outcome
