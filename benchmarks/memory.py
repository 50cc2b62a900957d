"""The most memory a process holds, in a fresh one each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.process import output
from benchmarks.rounds import Pairs, interleaved
from benchmarks.row import Row

TASKS = {"step": ("MNIST-1D MLP", 1.2), "large": ("55,000 × 784, MLP", 1.25)}
"""What is trained, and the ratio asked for."""


def peak(loop: str, task: str) -> float:
    """MiB at the most; two epochs reach it."""
    return float(output("-m", "benchmarks.peak", loop, task, "2"))


def block(members: int) -> Pairs:
    """MiB that a block takes at the most, beside one copy of its data and its members' numbers."""
    taken, least = map(float, output("-m", "benchmarks.block", str(members), "1").split())
    return Pairs([taken], [least])


def rows(quick: bool) -> Iterator[Row]:
    """truerisk and lightning-hydra-template's style against the bare loop."""
    for task, (what, most) in TASKS.items():
        contenders = {what: partial(peak, "ours", task)}
        if not quick:
            contenders["… template's style"] = partial(peak, "template", task)
        for name, pairs in interleaved(partial(peak, "bare", task), contenders, rounds=1).items():
            target = None
            if name == what:
                target = most
            yield Row(name, "bare loop", "MiB", pairs, target)
    yield Row("block of 16 MLPs, 55,000 × 784", "what it needs", "MiB", block(16), 1.2)
