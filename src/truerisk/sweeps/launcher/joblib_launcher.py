"""Cells side by side in joblib's workers."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError, first_line
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

PRE_DISPATCH = re.compile(r"all|[1-9]\d*|(\d*\.?\d+\s*\*\s*)?n_jobs")
"""Of cells that are handed over early: how many, or how many times as many as there are workers."""


class JoblibLauncher(Launcher):
    """``hydra/launcher=joblib``: as many cells at once as ``n_jobs`` says.

    Args:
        options: of `joblib.Parallel`, by its names. Workers are always processes (loky's): Hydra's
            state is one a process.

    Raises:
        ConfigError: one of them takes no such value.
    """

    passes_signals = True

    def __init__(self, **options: Any) -> None:
        if options.pop("backend", None) not in (None, "loky"):
            raise ConfigError("hydra.launcher.backend: cells run in joblib's loky workers; null")
        for key in ("pre_dispatch", "batch_size", "max_nbytes"):
            if str(options.get(key)).isdecimal():  # else joblib reads a text: 2*n_jobs, auto, 1M
                options[key] = int(options[key])
        check_options(options)
        self.options = options

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run the cells in workers, which end with this process."""
        import joblib

        left = {work.number: work.cell for work in works}
        watch = {"initializer": begin_worker, "initargs": (os.getpid(),)}
        options = {**self.options, **watch, "return_as": "generator_unordered"}
        parallel = joblib.Parallel(**options, backend="loky")
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


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what joblib would fail at, some of it only once the cells are handed over.

    Args:
        options: of `joblib.Parallel`.

    Raises:
        ConfigError: one of them takes no such value.
    """
    import joblib

    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        name, wanted = f"hydra.launcher.{key}", ""
        if key in ("verbose", "timeout"):
            check_float(name, value, above=key == "timeout")
        elif key == "n_jobs" and (type(value) is not int or value == 0):
            wanted = "a whole number, -1 for all cores"
        elif key == "pre_dispatch" and not PRE_DISPATCH.fullmatch(str(value)):
            wanted = "all, a whole number, or such as 2*n_jobs"
        elif key == "temp_folder" and not isinstance(value, str):
            wanted = "a folder"
        elif key == "mmap_mode" and value not in ("r", "r+", "w+", "c"):
            wanted = "r, r+, w+, c or null"
        if wanted:
            raise ConfigError(f"{name} must be {wanted}, not {value!r}")
        try:
            joblib.Parallel(**{key: value}, backend="loky")
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}={value}: joblib says: {first_line(error)}") from error


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
