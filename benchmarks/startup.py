"""How long a command takes to answer, and a run to take its first step and to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.process import seconds
from benchmarks.rounds import interleaved
from benchmarks.row import Row
from benchmarks.task import STEP

LIGHTNING = "import os, lightning"
DATA = "from mnist1d.data import get_dataset_args, make_dataset; make_dataset(get_dataset_args())"
LEAVE = "os._exit(0)"
"""Without the interpreter's tidying up, as ``first_step`` leaves."""
EPOCHS = 47
"""Where the default recipe stops."""


def rows(quick: bool) -> Iterator[Row]:
    """Commands against ``import lightning``; the first step against that and making its data.

    truerisk makes that data once and reads it from the user's cache from then on. A whole run of
    the default recipe, to its table and figure, is held against that import and as many epochs of
    the bare loop.
    """
    rounds = 2 if quick else 4
    commands = {
        "truerisk parts": partial(seconds, "-m", "truerisk", "parts"),
        "truerisk train --cfg job": partial(seconds, "-m", "truerisk", "train", "--cfg", "job"),
    }
    lightning = partial(seconds, "-c", "\n".join([LIGHTNING, LEAVE]))
    lightning()  # files come into the cache
    for what, pairs in interleaved(lightning, commands, rounds).items():
        yield Row(what, "import lightning", "s", pairs, target=0.1)
    first = {"truerisk train, first step": partial(seconds, "-m", "benchmarks.first_step")}
    data = partial(seconds, "-c", "\n".join([LIGHTNING, DATA, LEAVE]))
    for what, pairs in interleaved(data, first, rounds).items():
        yield Row(what, "… and making the data", "s", pairs, target=0.7)
    run = partial(seconds, "-m", "truerisk", "train", f"trainer.max_epochs={EPOCHS}")
    peer = interleaved(partial(add_epochs, lightning), {"truerisk train": run}, rounds)
    yield Row("truerisk train", f"… and {EPOCHS} bare epochs", "s", peer["truerisk train"], 1.5)


def add_epochs(lightning: Callable[[], float]) -> float:
    """Seconds of the import, and of the bare loop on data that is there."""
    from benchmarks.bare import BareLoop

    loop = BareLoop(STEP)
    for _ in range(EPOCHS):
        loop.epoch()
    return lightning() + loop.seconds
