"""The progress of many runs in one line."""

from __future__ import annotations

import sys
import time
from typing import Any

from truerisk.show.progress_line import (
    REFRESH,
    fit_line,
    format_duration,
    format_speed,
    open_live_line,
)


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
