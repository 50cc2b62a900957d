"""SIGTERM and Ctrl-C ask a run to stop; the run saves itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = getattr(signal, "SIGUSR2", None)
"""What SLURM sends a job before its time limit, as submitit asks it to."""


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
