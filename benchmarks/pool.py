"""Sweeps of tiny cells: the pool against Hydra's basic launcher, and skipping what is done."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.process import output, seconds
from benchmarks.rounds import interleaved
from benchmarks.row import Row


def rows(quick: bool) -> Iterator[Row]:
    """Seconds of one core a cell, everything imported; and 1,000 finished cells."""
    rounds, cells = (1, 8) if quick else (3, 25)
    basic = partial(cell, "basic", cells)
    for what, pairs in interleaved(basic, {"pool": partial(cell, "pool", cells)}, rounds).items():
        yield Row(f"{what}, a tiny cell", "Hydra's basic launcher", "s", pairs)
    lightning = partial(seconds, "-c", "import os, lightning; os._exit(0)")
    skipping = {"1,000 finished cells skipped": partial(cell, "skip", 1000)}
    for what, pairs in interleaved(lightning, skipping, 1).items():
        yield Row(what, "import lightning", "s", pairs)


CELLS = ("-m", "benchmarks.cells")


def cell(launcher: str, count: int) -> float:
    """Seconds of computing a cell, of a sweep of so many in one slot; of all for ``skip``."""
    return float(output(*CELLS, launcher, str(count)).splitlines()[-1].split()[0])
