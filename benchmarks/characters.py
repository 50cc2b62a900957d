"""A step of a small language model, beside a bare loop of the same model on the same tokens.

``python -m benchmarks.characters ours|bare FILE`` trains in this process for two epochs, on the
tokens of a file where there is the loop alone, and prints its peak memory in MiB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.process import output
from benchmarks.rounds import Pairs, beside_bare, interleaved
from benchmarks.row import Row
from benchmarks.task import Task

if TYPE_CHECKING:
    from torch import Tensor

OVERRIDES = (
    "experiment=gpt_characters",
    "optimizer=adam",  # the kernel of the bare loop's; clipping and schedule are no part of it
    "~optimizer.betas",
    "~optimizer.weight_decay",
    "param_groups=all",
    "scheduler=constant",
    "~scheduler.warmup",
    "step.clip.norm=null",
    "metric=[]",
    "data.val=3",
    "data.test=3",
    "data.num_train=40",
    "risk.train_samples=32",
    "risk.every=1000",
    "trainer.max_steps=-1",
)
"""Little is measured, as a step is what is asked for: the training set once, at the end."""
TOKENS = 32 * 64
"""Of a batch."""


@dataclass(frozen=True)
class TextTask(Task):
    """The decoder of ``experiment=gpt_characters``."""

    def model(self) -> Any:
        """The same model that truerisk builds."""
        from truerisk.model import GPT

        return GPT((64,), self.widths[0], width=64, depth=3, heads=4)


@cache
def tokens() -> tuple[Tensor, Tensor]:
    """The training sequences of the run."""
    from truerisk.assemble import assemble
    from truerisk.config.compose import compose

    split = assemble(compose(list(OVERRIDES))).data.train
    return split.x, split.y


def rows(quick: bool) -> Iterator[Row]:
    """A step, and tokens a second."""
    from benchmarks import ours

    size = int(tokens()[1].max()) + 1
    task = TextTask("characters", (size,), False, 32, 10**9, 0, 2, tokens, OVERRIDES)
    contender = {"a step, gpt_characters": partial(ours.timed, task, 8 if quick else 20)}
    for what, pairs in beside_bare(contender, 2 if quick else 5).items():
        yield Row(what, "bare loop", "µs", pairs, 1.15)
        speeds = [[1e6 * TOKENS / one for one in side] for side in (pairs.measured, pairs.against)]
        yield Row("… tokens a second", "bare loop", "1/s", Pairs(*speeds))
    from truerisk.data.token_rows import HELD

    for where, held in (("memory", HELD), ("a file", 0)):
        with (
            TemporaryDirectory() as cache,
            patch("truerisk.data.text_source.HELD", held),
            patch.dict(os.environ, XDG_CACHE_HOME=cache),
        ):
            loading = [time_loading(task, 3) for _ in range(2 if quick else 5)]
            assert bool(held) != bool(list(Path(cache).rglob("tokens-*.bin"))), where
        pairs = Pairs(*map(list, zip(*loading, strict=True)))
        yield Row(f"… data loading, from {where}", "the step", "µs", pairs, 0.03)
    yield from memory_rows(2 if quick else 3)


def time_loading(task: Task, epochs: int, *overrides: str) -> tuple[float, float]:
    """Microseconds a step spends on its batch, and in all, measurements left out."""
    from benchmarks import ours
    from truerisk.engine.lightning import ModelBackend

    spent = {"loading": 0.0, "step": 0.0, "steps": 0.0}
    load, step = ModelBackend.rest_of_epoch, ModelBackend.take_step

    def timed_load(backend: Any) -> Iterator[Any]:
        batches = load(backend)
        while True:
            began = perf_counter()
            batch = next(batches, None)
            spent["loading"] += perf_counter() - began
            if batch is None:
                return
            spent["steps"] += 1
            yield batch

    def timed_step(backend: Any, batch: Any) -> Any:
        began = perf_counter()
        try:
            return step(backend, batch)
        finally:
            spent["step"] += perf_counter() - began

    with (
        patch.object(ModelBackend, "rest_of_epoch", timed_load),
        patch.object(ModelBackend, "take_step", timed_step),
    ):
        ours.train(task, epochs, *overrides)
    whole = spent["loading"] + spent["step"]
    return 1e6 * spent["loading"] / spent["steps"], 1e6 * whole / spent["steps"]


def memory_rows(rounds: int) -> Iterator[Row]:
    """The most memory of a process, of which the loop's has its tokens from a file."""
    import torch

    with TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.pt"
        torch.save(tokens(), file)

        def peak(loop: str, *overrides: str) -> float:
            # below the table that a run ends with
            return float(
                output("-m", "benchmarks.characters", loop, str(file), *overrides).split()[-1]
            )

        contenders = {
            "peak memory, gpt_characters": partial(peak, "ours"),
            "… without its figure": partial(peak, "ours", "figures=false"),
        }
        for what, pairs in interleaved(partial(peak, "bare"), contenders, rounds).items():
            yield Row(what, "bare loop", "MiB", pairs, 1.15)


def main(loop: str, file: str, *overrides: str) -> None:
    """Train for two epochs, and tell the peak of memory."""
    import torch

    from benchmarks import bare, ours
    from benchmarks.peak import mebibytes

    torch.set_num_threads(1)
    samples = partial(torch.load, file)
    size = int(samples()[1].max()) + 1
    task = TextTask("characters", (size,), False, 32, 10**9, 0, 2, samples, OVERRIDES)
    if loop == "bare":
        bare.train(task, 2)
    else:
        ours.train(task, 2, *overrides)
    print(mebibytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
