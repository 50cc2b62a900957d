"""SIGTERM and Ctrl-C ask a run to stop, which saves itself first; a parent's death ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = getattr(signal, "SIGUSR2", None)
"""What SLURM sends a job before its time limit, as submitit asks it to."""
LOOK = 0.5
"""Seconds between two looks at whether a parent is still there."""


@contextmanager
def on_stop(ask: Callable[[str], None]) -> Iterator[None]:
    """Call ``ask`` with the signal's name at the first SIGINT or SIGTERM inside the block.

    A second one does what it does elsewhere. SIGUSR2 counts as SIGTERM where a handler waits for
    it: that one, which puts a job back in line and ends it wherever it stands, has its turn when
    the block has been left. Only the main thread can catch signals; in any other the block changes
    nothing.
    """
    # Python lets only the main thread set a handler
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, *_awaited())}
    put_off: list[tuple[int, FrameType | None]] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        if number not in SIGNALS:
            put_off.append((number, frame))
        # handlers are back before anyone is asked: a second Ctrl-C must end what hangs
        ask(signal.Signals(number if number in SIGNALS else signal.SIGTERM).name)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
        for number, frame in put_off:
            before[number](number, frame)  # type: ignore[operator,misc]


def _awaited() -> list[int]:
    return [NOTICE] if NOTICE is not None and callable(signal.getsignal(NOTICE)) else []


def end_with_parent(parent: int | None = None) -> None:
    """End this process when its parent is gone, and with it whoever would count its outcome.

    Args:
        parent: the process that started this one, where `multiprocessing` does not know it.
    """
    known = multiprocessing.parent_process()
    if parent is None and known is not None:
        parent = known.pid

    def watch() -> None:
        # not by a signal of the system's at the parent's death: that one is of the thread that
        # started this process, which may end long before
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    if parent not in (None, os.getpid()):
        threading.Thread(target=watch, daemon=True).start()
