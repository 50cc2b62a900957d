"""What looking at a run costs, beside the same run without a look."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import process
from benchmarks.rounds import interleaved
from benchmarks.row import Row
from benchmarks.task import STEP

CHEAP = ("gradient_flow", "activations", "update_size", "numerics")
TARGET = 1.10
"""Of the cheap ones together, at their default rhythm."""


def rows(quick: bool) -> Iterator[Row]:
    """A step with each of the cheap ones and with all, and the whole command with its figures."""
    epochs, rounds = (STEP.epochs // 4, 3) if quick else (STEP.epochs, 7)
    chosen = {name: name for name in CHEAP} | {"the cheap ones together": ",".join(CHEAP)}
    contenders = {what: partial(_step, epochs, names) for what, names in chosen.items()}
    found = interleaved(partial(_step, epochs, ""), contenders, rounds)
    for what, pairs in found.items():
        yield Row(what, "without", "bare steps", pairs, TARGET if what not in CHEAP else None)
    whole = {"… truerisk train, figures too": partial(_command, ",".join(CHEAP))}
    for what, pairs in interleaved(partial(_command, ""), whole, rounds).items():
        yield Row(what, "without", "s", pairs, TARGET)


def _step(epochs: int, names: str) -> float:
    """A step of the default recipe, from set-up to tear-down, in steps of the loop beside it."""
    from benchmarks import ours

    turns = ours.timed(STEP, epochs, f"diagnostics=[{names}]")
    return turns.seconds / turns.peer


def _command(names: str) -> float:
    """Seconds of the default command, from start to exit."""
    with TemporaryDirectory() as folder:
        where = f"hydra.run.dir={Path(folder) / 'run'}"
        return process.seconds("-m", "truerisk", "train", where, f"diagnostics=[{names}]")
