"""SIGTERM and Ctrl-C ask a run to stop; the run saves itself first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop(ask: Callable[[str], None]) -> Iterator[None]:
    """Call ``ask`` with the signal's name at the first SIGINT or SIGTERM inside the block.

    A second one does what it does elsewhere. Only the main thread can catch signals; in any other
    the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        restore()
        ask(signal.Signals(number).name)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
