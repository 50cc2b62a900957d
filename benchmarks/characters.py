"""A step of a small language model, beside a bare loop of the same model on the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import Pairs, beside_bare
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
