"""Studies of 128 and of 1,000 cells, from the command to their last file."""

from __future__ import annotations

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
SPEEDUPS = {1: 7, 2: 14}
"""Over Hydra's basic launcher, by the number of processes."""
MANY, SHORT = 1000, 20
"""Cells of softmax regression, and their epochs."""


def rows(quick: bool) -> Iterator[Row]:
    """Wall seconds a cell: in one process, in two, and in lightning-hydra-template's style.

    The peer does fewer cells than the study has, one after another, and what it takes to start and
    to make the page is not counted against it. The study of a thousand is held against nothing but
    the steps of as many bare loops.
    """
    rounds, few = (1, 5) if quick else (2, 17)
    contenders = {f"128 cells, {n} at once": partial(together, n) for n in SPEEDUPS}
    found = interleaved(partial(one_by_one, few), contenders, rounds)
    for (what, pairs), speedup in zip(found.items(), SPEEDUPS.values(), strict=True):
        yield Row(what, "Hydra's basic launcher", "s a cell", pairs, round(1 / speedup, 3))
    template = Pairs()
    for against in next(iter(found.values())).against:
        template.add(in_template_style(), against)
    yield Row("… template's style", "Hydra's basic launcher", "s a cell", template)
    many = interleaved(bare_softmax, {"1,000 cells": softmax_study}, rounds)
    for what, pairs in many.items():
        yield Row(f"{what}, softmax", "bare loop", "s a cell", pairs, 1)


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


def softmax_study() -> float:
    """Seconds a cell of a thousand, with all that the command does."""
    recipe = ("model=linear", f"trainer.max_epochs={SHORT}", f"seed=range({MANY})")
    launcher = ("hydra/launcher=vectorized", "hydra.launcher.processes=2")
    return seconds("-m", "truerisk", "train", "-m", *recipe, "threads=1", *launcher) / MANY


def bare_softmax() -> float:
    """Seconds of the bare loop on one of them."""
    from benchmarks.bare import BareLoop

    loop = BareLoop(replace(STEP, widths=(40, 10)))
    for _ in range(SHORT):
        loop.epoch()
    return loop.seconds


def in_template_style() -> float:
    """Seconds of one training, everything imported."""
    from benchmarks import template

    return template.timed(TASK, EPOCHS).took
