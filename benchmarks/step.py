"""A step of a small network, where the framework's own cost shows most."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.rounds import beside_bare
from benchmarks.row import Row
from benchmarks.task import STEP

TEMPLATE_EPOCHS = 10
"""A tenth of truerisk's: its steps take about ten times as long."""


def rows(quick: bool) -> Iterator[Row]:
    """truerisk with its two rhythms of checkpoints, and lightning-hydra-template's style."""
    from benchmarks import ours, template

    epochs = STEP.epochs // 4 if quick else STEP.epochs
    contenders = {
        "a step, MNIST-1D MLP": partial(ours.timed, STEP, epochs),
        "… checkpoints every epoch": partial(ours.timed, STEP, epochs, "checkpoint_seconds=0"),
        "… template's style": partial(template.timed, STEP, TEMPLATE_EPOCHS),
    }
    targets = [1.35, None, None]
    found = beside_bare(contenders, 3 if quick else 5)
    for (what, pairs), target in zip(found.items(), targets, strict=True):
        yield Row(what, "bare loop", "µs", pairs, target)
