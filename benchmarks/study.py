"""A study of 128 cells × 60 epochs, from the command to its last file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.process import seconds
from benchmarks.rounds import Pairs, interleaved
from benchmarks.row import Row
from benchmarks.task import STEP

CELLS, EPOCHS = 128, 60
RECIPE = ("model.depth=1", f"trainer.max_epochs={EPOCHS}", "threads=1")
TASK = replace(STEP, widths=(40, 100, 10))
SPEEDUP = 12


def rows(quick: bool) -> Iterator[Row]:
    """Wall seconds a cell: in one process, in one a core, and in lightning-hydra-template's style.

    The peer does fewer cells than the study has, one after another, and what it takes to start and
    to make the page is not counted against it.
    """
    rounds, few = (1, 5) if quick else (2, 17)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    contenders = {
        "128 cells × 60 epochs": partial(together, 1),
        f"… in {cores} processes": partial(together, cores),
    }
    found = interleaved(partial(one_by_one, few), contenders, rounds)
    for what, pairs in found.items():
        yield Row(what, "Hydra's basic launcher", "s a cell", pairs, 1 / SPEEDUP)
    template = Pairs()
    for against in found["128 cells × 60 epochs"].against:
        template.add(in_template_style(), against)
    yield Row("… template's style", "Hydra's basic launcher", "s a cell", template)


def train(*arguments: str) -> float:
    """Seconds that the command takes."""
    return seconds("-m", "truerisk", "train", "-m", *RECIPE, *arguments)


def together(processes: int) -> float:
    """Seconds a cell of the whole study, with all that the command does."""
    launcher = ("hydra/launcher=vectorized", f"hydra.launcher.processes={processes}")
    return train(f"seed=range({CELLS})", *launcher) / CELLS


def one_by_one(cells: int) -> float:
    """Seconds a cell, beyond the first."""
    return (train(f"seed=range({cells})") - train("seed=range(1)")) / (cells - 1)


def in_template_style() -> float:
    """Seconds of one training, everything imported."""
    from benchmarks import template

    return template.timed(TASK, EPOCHS).took
