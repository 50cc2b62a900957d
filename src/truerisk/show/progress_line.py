"""The progress of a run, as one live line or as a few plain ones."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from truerisk.engine.loop import Observer, TrainingLoop
from truerisk.engine.state import TrainingRun
from truerisk.task import Task

REFRESH = 0.2
"""Seconds between two redraws of the live line; a redraw takes about 0.5 ms."""
LONGEST_BAR, SHORTEST_BAR = 40, 5
"""Characters."""

_silenced = False


def silence_progress() -> None:
    """Show no progress from now on, in a process whose lines would mix with those of others."""
    global _silenced
    _silenced = True


def format_duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds.

    >>> format_duration(5), format_duration(3725)
    ('0:05', '1:02:05')
    """
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"


def format_speed(steps: float, seconds: float) -> str:
    """Write optimizer steps per second, in three digits.

    Args:
        steps: that were taken.
        seconds: that they took.

    >>> format_speed(10, 4), format_speed(25_000, 2)
    ('2.5 steps/s', '12.5k steps/s')
    """
    rate = 0.0
    if seconds > 0:
        rate = steps / seconds
    if rate >= 1000:
        return f"{rate / 1000:.3g}k steps/s"
    return f"{rate:.3g} steps/s"


def format_numbers(metrics: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, str]:
    """Write the numbers to show as text, those that have been measured.

    Args:
        metrics: logged numbers by name.
        shown: names there, by the names to show them under.
    """
    return {k: f"{float(metrics[n]):.4g}" for k, n in shown.items() if n in metrics}


def fit_line(parts: Sequence[str], share: float | None, width: int) -> str:
    """Fit parts into one line, in the order of their weight, with a bar after the first.

    The last parts are left out while the line is too long; the bar takes what is left over.

    Args:
        parts: at least one.
        share: how much is done, or None for no bar.
        width: of the terminal, in characters; the line is shorter.

    >>> fit_line(["epoch 5/10", "val 0.3", "7 steps/s"], 0.5, 33)
    'epoch 5/10 ━━━━━━────── val 0.3'
    """
    room = width - 1
    while len(parts) > 1 and len("  ".join(parts)) + 13 > room:
        parts = parts[:-1]
    text = "  ".join(parts)
    length = min(LONGEST_BAR, room - len(text) - 1)
    if share is None or length < SHORTEST_BAR:
        return text[:room]
    done = round(share * length)
    # characters that tell done from left without color
    bar = "━" * done + "─" * (length - done)
    return f"{parts[0]} {bar} {'  '.join(parts[1:])}".rstrip()


class Progress(Observer):
    """Shows epoch, objective, train and validation risk, and speed while a run goes on.

    Of a test function: its value and the distance from a known minimum in place of the risks.

    On a terminal: one live line. Elsewhere (a pipe, CI, a SLURM log): a plain line for the first
    epoch, one about every tenth of the run, and the last; before the first tenth also after
    30 s, 2 min, 8 min and so on. Written to stderr, by the process of global rank zero only.

    Args:
        enabled: False shows nothing.
        shown: the logged numbers to show, by the names to show them under.
    """

    def __init__(self, enabled: bool = True, shown: Mapping[str, str] = Task.progress) -> None:
        self.enabled, self.shown = enabled and not _silenced, shown
        self._live: Any = None
        self._on = False

    def on_start(self, loop: TrainingLoop) -> None:
        """Begin, with a live line if there is a terminal."""
        self._on = self.enabled and loop.backend.host.rank == 0
        self._began = self._drawn = time.monotonic()
        self._first_step, self._next_share, self._next_time, self._said = (
            loop.first.state.step,
            0.0,
            30.0,
            -1,
        )
        if self._on:
            self._live = open_live_line()

    def on_step(self, loop: TrainingLoop) -> None:
        """Redraw the live line, five times a second at most."""
        if self._live is not None and time.monotonic() - self._drawn >= REFRESH:
            self._draw_line(loop.first, running=True)

    def on_epoch(self, loop: TrainingLoop) -> None:
        """Show what an epoch has measured."""
        if self._on and not loop.first.ended:
            self._show_state(loop.first)

    def on_end(self, loop: TrainingLoop) -> None:
        """Leave the last state on the screen, unless it was there before the run went on."""
        if self._on and loop.first.state.step > self._first_step:
            self._show_state(loop.first, last=True)
        self._close_line()

    def on_break(self, loop: TrainingLoop) -> None:
        """Give the terminal back."""
        self._close_line()

    def _list_parts(self, run: TrainingRun, running: bool) -> list[str]:
        epoch = f"epoch {run.state.epoch + running}"
        if run.max_epochs is not None and run.max_epochs > 0:
            epoch = f"{epoch}/{run.max_epochs}"
        passed = time.monotonic() - self._began
        values = run.values
        # a plain line is of its epoch: it repeats nothing of the one measured before
        if self._live is None and run.measured != run.state.epoch:
            values = {}
        measured = reversed(format_numbers(values, self.shown).items())
        return [
            epoch,
            *(f"{name} {number}" for name, number in measured),
            format_duration(passed),
            format_speed(run.state.step - self._first_step, passed),
        ]

    def _draw_line(self, run: TrainingRun, running: bool) -> None:
        from rich.text import Text

        self._drawn = time.monotonic()
        share = min(1.0, run.state.step / max(1, run.horizon))
        line = fit_line(self._list_parts(run, running), share, self._live.console.width)
        self._live.update(Text(line, no_wrap=True), refresh=True)

    def _show_state(self, run: TrainingRun, last: bool = False) -> None:
        if self._live is not None:
            if last or time.monotonic() - self._drawn >= REFRESH:
                self._draw_line(run, running=not last)
            return
        # asked first, as it counts the tenths
        due = self._is_due(min(1.0, run.state.step / max(1, run.horizon)), last)
        if due and self._said != run.state.epoch:
            self._said = run.state.epoch
            print("  ".join(self._list_parts(run, running=False)), file=sys.stderr, flush=True)

    def _is_due(self, share: float, last: bool) -> bool:
        passed = time.monotonic() - self._began
        late = passed >= self._next_time and share < 0.1
        if late:
            self._next_time = 4 * passed
        tenth = self._next_share <= share
        if tenth:
            # 1e-9: a share may be short of its tenth by rounding
            self._next_share = math.floor(10 * share + 1e-9) / 10 + 0.1 - 1e-9
        return tenth or late or last

    def _close_line(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._on = None, False


def open_live_line() -> Any:
    """Open a live line on stderr, drawn only on request; None where that is no terminal."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    # no refreshing thread, which would wake up beside training; prints go above the line
    live = Live(console=console, auto_refresh=False, redirect_stdout=True)
    live.start()
    return live
