"""A step on a data set of MNIST's size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.rounds import beside_bare
from benchmarks.row import Row
from benchmarks.task import LARGE


def rows(quick: bool) -> Iterator[Row]:
    """truerisk against the bare loop."""
    from benchmarks import ours

    epochs = LARGE.epochs // 2 if quick else LARGE.epochs
    contenders = {"a step, 55,000 × 784, MLP": partial(ours.timed, LARGE, epochs)}
    for what, pairs in beside_bare(contenders, 2 if quick else 4).items():
        yield Row(what, "bare loop", "µs", pairs, target=1.15)
