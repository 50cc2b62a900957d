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
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from truerisk.core.checks import check_int
from truerisk.outcome import INTERRUPTED, Outcome
from truerisk.sweeps.launcher.launcher import HydraJobs
from truerisk.sweeps.sweep_cell import SweepCell

FORK = multiprocessing.get_context("fork")


class Worker(NamedTuple):
    """A process at work on a cell."""

    process: BaseProcess
    pipe: Connection
    number: int
    slot: Slot


class Pool:
    """A queue of cells, as many at once as there are slots, each in a process of its own.

    The processes are forked from this one, which has imported everything and run once: a cell
    costs a fork of some ten milliseconds instead of an import of seconds, and one that crashes
    takes no other with it. Each is pinned to its share of the cores, or to its GPU.

    Args:
        slots: cells at once; ``auto`` is one for each GPU, or each core where none is used.
    """

    def __init__(self, slots: int | Literal["auto"] = "auto") -> None:
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looks without starting CUDA
        self.slots = slots if slots == "auto" else check_int("hydra.launcher.slots", slots)
        self.stopped = ""

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Do the cells; one that was asked to stop ends the others and the sweep."""
        from truerisk.engine.signals import on_stop
        from truerisk.sweeps.launcher.pool import warm_up

        free, ended = divide_machine(self.slots, cells), dict[int, Outcome]()
        warm_up()
        gc.freeze()  # collecting would touch, and so copy, every page that workers share
        waiting, busy = iter(enumerate(cells)), list[Worker]()
        with on_stop(lambda name: self._stop(name, busy)):
            busy += [_start(jobs, n, c, free.pop()) for n, c in _first(waiting, len(free))]
            while busy:
                for worker in _ready(busy):
                    busy.remove(worker)
                    ended[worker.number] = _end(worker, cells[worker.number])
                    following = None if self.stopped else next(waiting, None)
                    if following is not None:
                        busy.append(_start(jobs, *following, worker.slot))
        gc.unfreeze()
        if self.stopped:
            raise SystemExit(INTERRUPTED[self.stopped])
        return [ended[number] for number in range(len(cells))]

    def _stop(self, name: str, busy: Sequence[Worker]) -> None:
        """Pass a signal on: every cell saves itself, and no new one begins."""
        self.stopped = name
        for worker in busy:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid or 0, signal.Signals[name])


def _first(cells: Iterator[tuple[int, SweepCell]], count: int) -> list[tuple[int, SweepCell]]:
    return [pair for _, pair in zip(range(count), cells, strict=False)]


def _start(jobs: HydraJobs, number: int, cell: SweepCell, slot: Slot) -> Worker:
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_work, args=(jobs, number, cell, slot, theirs))
    process.start()
    theirs.close()
    return Worker(process, ours, number, slot)


def _work(jobs: HydraJobs, number: int, cell: SweepCell, slot: Slot, pipe: Connection) -> None:
    """In the worker: one cell. Ctrl-C reaches the pool alone, which passes it on once."""
    from truerisk.show.progress_line import silence_progress

    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    silence_progress()
    slot.take()
    try:
        pipe.send(jobs.run(cell, number))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED["SIGINT"])


def _ready(busy: Sequence[Worker]) -> list[Worker]:
    """Workers that have something to say, or have died."""
    heard: list[Any] = wait([worker.process.sentinel for worker in busy])
    return [worker for worker in busy if worker.process.sentinel in heard]


def _end(worker: Worker, cell: SweepCell) -> Outcome:
    """What a worker has sent; where it died, that is written to the run's status too."""
    with worker.pipe:
        sent = _received(worker.pipe)
    worker.process.join()
    if sent is not None:
        return sent
    code = worker.process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code in INTERRUPTED.values() or how in INTERRUPTED:
        return Outcome(math.nan, "interrupted", signal.Signals(abs(code) % 128).name)
    reason = f"its process ended with {how}"
    if cell.run.status().get("pid") == worker.process.pid:
        cell.run.set_status("failed", reason)
    print(f"{cell.label}: failed ({reason})  {cell.folder}", flush=True)
    return Outcome(math.nan, "failed", reason)


def _received(pipe: Connection) -> Outcome | None:
    try:
        return pipe.recv() if pipe.poll() else None
    except EOFError:
        return None


@dataclass(frozen=True)
class Slot:
    """A share of the cores, and a GPU or none."""

    cores: tuple[int, ...]
    gpu: str | None = None

    def take(self) -> None:
        """Pin this process to it: `truerisk.core.threads` counts the cores it finds."""
        import torch

        if hasattr(os, "sched_setaffinity") and self.cores:
            os.sched_setaffinity(0, self.cores)
            torch.set_num_threads(min(torch.get_num_threads(), len(self.cores)))
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu


def divide_machine(count: int | Literal["auto"], cells: Sequence[SweepCell]) -> list[Slot]:
    """The slots of this machine for some cells."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    found = list_gpus() if any(map(_on_gpu, cells)) else []
    number = (len(found) or len(cores) or os.cpu_count() or 1) if count == "auto" else count
    number = min(number, len(cells))
    shares = [tuple(cores[i::number]) or tuple(cores) for i in range(number)]
    devices = [found[i % len(found)] if found else None for i in range(number)]
    return [Slot(share, gpu) for share, gpu in zip(shares, devices, strict=True)]


def _on_gpu(cell: SweepCell) -> bool:
    return cell.config["trainer"].get("accelerator", "auto") in ("auto", "gpu", "cuda")


def list_gpus() -> list[str]:
    """CUDA's devices as ``CUDA_VISIBLE_DEVICES`` names them, without starting CUDA here."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]


TINY = ["data=iris", "model=linear", "trainer.max_epochs=1", "regularizer=[]", "threads=1"]


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
