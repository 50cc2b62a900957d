"""Worker processes on this machine, warm from the start."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from tempfile import TemporaryDirectory
from typing import Any, Literal

from truerisk.core.checks import check_int
from truerisk.engine.signals import end_with_parent
from truerisk.outcome import INTERRUPTED, Outcome
from truerisk.sweeps.launcher.launcher import CellWork, Launcher
from truerisk.sweeps.run_cell import REFUSALS, tell_outcome
from truerisk.sweeps.sweep_cell import SweepCell

FORK = multiprocessing.get_context("fork")
LIFE = 32
"""Cells after which another process takes a worker's place: what a user's code leaks is freed."""
TINY = ["data=iris", "model=linear", "trainer.max_epochs=1", "regularizer=[]", "threads=1"]
"""The recipe that sets a process up."""


@dataclass(frozen=True)
class MachineSlot:
    """What of the machine one worker may use.

    Attributes:
        cores: the numbers of its cores.
        gpu: the one device it sees, as ``CUDA_VISIBLE_DEVICES`` names it; None where none is used.
    """

    cores: tuple[int, ...]
    gpu: str | None = None

    def occupy(self) -> None:
        """Pin this process to the slot: `truerisk.core.threads` counts the cores it finds."""
        import torch

        if hasattr(os, "sched_setaffinity") and self.cores:
            os.sched_setaffinity(0, self.cores)
            torch.set_num_threads(min(torch.get_num_threads(), len(self.cores)))
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu


class PoolWorker:
    """A forked process that trains one cell after another.

    Args:
        works: those that it may be given, by their numbers.
        slot: what of the machine is its own.
    """

    def __init__(self, works: Sequence[CellWork], slot: MachineSlot) -> None:
        self.works, self.slot, self.begun, self.number = works, slot, 0, 0
        self.pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(target=_run_worker, args=(works, slot, theirs))
        self.process.start()
        theirs.close()  # else the pipe would not end with the worker

    @property
    def cell(self) -> SweepCell:
        """The one it was given last."""
        return self.works[self.number].cell

    def is_fit(self) -> bool:
        """Tell whether it can be given another cell."""
        return self.process.is_alive() and self.begun < LIFE

    def begin_work(self, number: int) -> None:
        """Give it a cell."""
        self.number, self.begun = number, self.begun + 1
        self.send(number)

    def send(self, number: int | None) -> None:
        """Send the number of a work, or None for an end; one that is dead is heard of elsewhere."""
        with contextlib.suppress(OSError):
            self.pipe.send(number)

    def receive_outcome(self) -> Outcome:
        """Take what it has sent; where it died, that is written to the run's status too."""
        with contextlib.suppress(EOFError, OSError):  # it died before it sent anything
            return self.pipe.recv()
        self.process.join()  # the exit code is known from here on
        code = self.process.exitcode or 0
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
        if code in INTERRUPTED.values() or how in INTERRUPTED:
            return Outcome(math.nan, "interrupted", signal.Signals(abs(code) % 128).name)
        failure = Outcome(math.nan, "failed", f"its process ended with {how}", lost=True)
        # not where another launch has taken the run over since
        if self.cell.run.status().get("pid") == self.process.pid:
            self.cell.run.set_status("failed", failure.reason)
        tell_outcome(failure, self.cell.folder)
        return failure


class Pool(Launcher):
    """A queue of cells, as many at once as there are slots, each slot with a process of its own.

    The processes are forked from this one, which has imported everything and run once: they begin
    within some ten milliseconds instead of an import of seconds. One that crashes takes no other
    with it, and another takes its place. Each is pinned to its share of the cores, or to its GPU.

    Args:
        slots: cells at once; ``auto`` is one for each GPU, or each core where none is used.
    """

    passes_signals = True

    def __init__(self, slots: int | Literal["auto"] = "auto") -> None:
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looks without starting CUDA
        self.slots = slots if slots == "auto" else check_int("hydra.launcher.slots", slots)
        self._busy: list[PoolWorker] = []

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run a cell in each slot until none is left, or a signal has stopped them."""
        free = divide_machine(self.slots, [work.cell for work in works])
        waiting, idle = iter(range(len(works))), list[PoolWorker]()
        warm_up()
        gc.freeze()  # collecting would touch, and so copy, every page that workers share
        try:
            while True:
                idle, worn = [w for w in idle if w.is_fit()], [w for w in idle if not w.is_fit()]
                free += _end_workers(worn)
                while (free or idle) and not self.stopped:
                    if (number := next(waiting, None)) is None:
                        break
                    worker = idle.pop() if idle else PoolWorker(works, free.pop())
                    worker.begin_work(number)
                    self._busy.append(worker)
                if not self._busy:
                    return
                for worker in _wait_for_any(self._busy):
                    self._busy.remove(worker)
                    idle.append(worker)
                    yield worker.cell, worker.receive_outcome()
        finally:
            gc.unfreeze()
            _end_workers([*idle, *self._busy])

    def stop_cells(self, name: str) -> None:
        """Pass a signal on: every cell saves itself."""
        for worker in self._busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid or 0, signal.Signals[name])


def _run_worker(works: Sequence[CellWork], slot: MachineSlot, pipe: Connection) -> None:
    """Run the cells that are asked for, in the worker's process."""
    from truerisk.show.progress_line import silence_progress

    end_with_parent()
    os.setpgrp()  # Ctrl-C reaches the pool alone, which passes it on once
    # the pool's handlers came along in the fork
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    REFUSALS.left = True
    silence_progress()  # several lines would overwrite each other
    slot.occupy()
    try:
        while (number := pipe.recv()) is not None:
            pipe.send(works[number]())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED["SIGINT"])


def _wait_for_any(workers: Sequence[PoolWorker]) -> list[PoolWorker]:
    """Wait until workers have ended their cells, or were killed."""
    ended: list[Any] = wait([worker.pipe for worker in workers])
    return [worker for worker in workers if worker.pipe in ended]


def _end_workers(workers: Sequence[PoolWorker]) -> list[MachineSlot]:
    """End workers, each after the cell it is at; gives their slots."""
    for worker in workers:
        worker.send(None)  # closing the pipe would not do: processes forked since hold it, too
    return [worker.slot for worker in workers]


def divide_machine(count: int | Literal["auto"], cells: Sequence[SweepCell]) -> list[MachineSlot]:
    """Share out the cores and GPUs of this machine.

    Args:
        count: slots; ``auto`` is one for each GPU, or each core where none is used.
        cells: those that will run, of which no more are asked for than there are.

    Returns:
        At most ``len(cells)`` slots.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus: list[str | None] = []
    if any(map(_may_use_gpu, cells)):
        gpus += list_gpus()
    if count == "auto":
        count = len(gpus) or len(cores) or os.cpu_count() or 1
    number = min(count, len(cells))
    # more slots than cores share all of them
    shares = [tuple(cores[i::number]) or tuple(cores) for i in range(number)]
    gpus = gpus or [None]
    return [MachineSlot(share, gpus[i % len(gpus)]) for i, share in enumerate(shares)]


def _may_use_gpu(cell: SweepCell) -> bool:
    return cell.config["trainer"].get("accelerator", "auto") in ("auto", "gpu", "cuda")


def list_gpus() -> list[str]:
    """List CUDA's devices as ``CUDA_VISIBLE_DEVICES`` names them, without starting CUDA here."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]


@cache
def warm_up() -> None:
    """Run a tiny recipe once, so that all that runs need is imported and set up.

    With one thread, on the CPU: a fork keeps neither threads nor CUDA.
    """
    import torch

    import truerisk

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        truerisk.train(TINY, folder=f"{folder}/run")
