"""The progress of a run, as one live line or as a few plain ones."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

RISKS = {"objective": "objective", "train": "risk/train", "val": "risk/val"}
FUNCTION = {"distance": "distance", "value": "risk/val"}
"""What is shown of a run, by its name there; the last one weighs most."""
quiet = False
"""Set in a process whose lines would mix with those of others beside it."""
REFRESH = 0.2
"""Seconds between two redraws of the live line; a redraw takes about 0.5 ms."""


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds.

    >>> duration(5), duration(3725)
    ('0:05', '1:02:05')
    """
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def speed(steps: float, seconds: float) -> str:
    """Optimizer steps per second, in three digits.

    >>> speed(10, 4), speed(25_000, 2)
    ('2.5 steps/s', '12.5k steps/s')
    """
    rate = steps / seconds if seconds > 0 else 0.0
    return f"{rate / 1000:.3g}k steps/s" if rate >= 1000 else f"{rate:.3g} steps/s"


def fraction(trainer: Trainer, module: LightningModule) -> float | None:
    """How much of the run is done, 0 to 1, or None where its length is not known.

    The module's ``horizon``, in optimizer steps, counts first; else ``max_steps`` and
    ``max_epochs`` do, whichever ends first.
    """
    horizon = getattr(module, "horizon", None)
    shares = [trainer.global_step / horizon] if isinstance(horizon, int) and horizon > 0 else []
    if not shares and trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if not shares and trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append(trainer.current_epoch / trainer.max_epochs)
    return min(1.0, max(shares)) if shares else None


def values(metrics: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, str]:
    """The numbers to show as text, those that have been measured."""
    return {k: f"{float(metrics[n]):.4g}" for k, n in shown.items() if n in metrics}


def fitted(parts: list[str], share: float | None, width: int) -> str:
    """One line of at most ``width`` characters: parts in the order of their weight, and a bar.

    The last parts are left out while the line is too long; the bar takes what is left over.

    >>> fitted(["epoch 5/10", "val 0.3", "7 steps/s"], 0.5, 33)
    'epoch 5/10 ━━━━━━────── val 0.3'
    """
    room = width - 1
    while len(parts) > 1 and len("  ".join(parts)) + 13 > room:
        parts = parts[:-1]
    length = min(40, room - len("  ".join(parts)) - 1)
    if share is None or length < 5:
        return "  ".join(parts)[:room]
    done = round(share * length)
    return f"{parts[0]} {'━' * done}{'─' * (length - done)} {'  '.join(parts[1:])}".rstrip()


class Progress(Callback):
    """Shows epoch, objective, train and validation risk, and speed while a run goes on.

    Of a test function: its value and the distance from a known minimum in place of the risks.

    On a terminal: one live line. Elsewhere (a pipe, CI, a SLURM log): a plain line for the first
    epoch, one about every tenth of the run, and the last; before the first tenth also after
    30 s, 2 min, 8 min and so on. Written to stderr, by the process of global rank zero only.

    Args:
        enabled: False shows nothing.
        shown: the logged numbers to show, by the names to show them under.
    """

    def __init__(self, enabled: bool = True, shown: Mapping[str, str] = RISKS) -> None:
        self.enabled, self.shown = enabled and not quiet, shown
        self._live: Any = None
        self._on = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, with a live line if there is a terminal."""
        self._on = self.enabled and trainer.is_global_zero
        self._began = self._drawn = time.monotonic()
        self._first_step, self._first_epoch = trainer.global_step, trainer.current_epoch
        self._next_share, self._next_time, self._said = 0.0, 30.0, -1
        if self._on:
            self._live = live_line()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_args: Any) -> None:
        """Redraw the live line, five times a second at most."""
        if self._live is not None and time.monotonic() - self._drawn >= REFRESH:
            self._draw(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the epoch before: its risks are measured after every other hook of its end."""
        if self._on and trainer.current_epoch > self._first_epoch:
            self._tell(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen."""
        if self._on:
            self._tell(trainer, pl_module, last=True)
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self._stop()

    def _parts(self, trainer: Trainer, running: bool) -> list[str]:
        epoch = trainer.current_epoch + running
        known = trainer.max_epochs is not None and trainer.max_epochs > 0
        passed = time.monotonic() - self._began
        measured = reversed(values(trainer.callback_metrics, self.shown).items())
        return [
            f"epoch {epoch}/{trainer.max_epochs}" if known else f"epoch {epoch}",
            *(f"{k} {v}" for k, v in measured),
            duration(passed),
            speed(trainer.global_step - self._first_step, passed),
        ]

    def _draw(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        from rich.text import Text

        self._drawn = time.monotonic()
        width = self._live.console.width
        line = fitted(self._parts(trainer, not last), fraction(trainer, module), width)
        self._live.update(Text(line, no_wrap=True), refresh=True)

    def _tell(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        if self._live is not None:
            if last or time.monotonic() - self._drawn >= REFRESH:
                self._draw(trainer, module, last)
        elif self._due(fraction(trainer, module), last) and self._said != trainer.current_epoch:
            self._said = trainer.current_epoch
            print("  ".join(self._parts(trainer, running=False)), file=sys.stderr, flush=True)

    def _due(self, share: float | None, last: bool) -> bool:
        passed = time.monotonic() - self._began
        late = passed >= self._next_time and (share is None or share < 0.1)
        if late:
            self._next_time = 4 * passed
        tenth = self._next_share <= (share or 0.0) if share is not None else self._said < 0
        if tenth and share is not None:
            self._next_share = math.floor(10 * share + 1e-9) / 10 + 0.1 - 1e-9
        return tenth or late or last

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._on = None, False


def live_line() -> Any:
    """A live line on stderr, drawn only on request, or None where it is no terminal."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    live = Live(console=console, auto_refresh=False, redirect_stdout=True)
    live.start()
    return live
