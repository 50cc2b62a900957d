"""Optimizer steps of a recipe, timed without the loop around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import process_time

import torch

from truerisk.assemble import assemble
from truerisk.config.compose import compose
from truerisk.engine.host import Host
from truerisk.engine.precision import DevicePrecision
from truerisk.engine.several_looks import make_step
from truerisk.engine.step import MicroBatches
from truerisk.objective import Objective

CHECK = 8
"""Mini-batch steps between looks at the train risk."""


class Descent:
    """A recipe that takes steps; ``seconds`` and ``steps`` add up, without looks at the risk.

    Seconds are those of the CPU, which what else runs on the machine disturbs less.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.recipe = assemble(compose(list(overrides)))
        self.train = self.recipe.data.train.to("cpu", torch.float32)
        model = self.recipe.model
        optimizer = self.recipe.optimizer(model)
        schedule = self.recipe.schedule(optimizer, 1_000_000)
        objective = Objective(model, self.recipe.surrogate, self.recipe.hooks("penalty"))
        host = Host(DevicePrecision(torch.device("cpu"), "32-true"))
        self.step = make_step(self.recipe, objective, optimizer, schedule, host)
        self.full = self.recipe.plan().full
        self.batches, self.steps, self.seconds = self._batches(), 0, 0.0

    def _batches(self) -> Iterator[MicroBatches]:
        plan, epoch = self.recipe.plan(), 0
        while True:
            for step in plan.epoch(epoch):
                batches = self.train.batches([index for index, _ in step])
                yield [(batch, share) for batch, (_, share) in zip(batches, step, strict=True)]
            epoch += 1

    def take(self) -> None:
        """A step."""
        micro_batches = next(self.batches)
        began = process_time()
        self.step(micro_batches)
        self.seconds += process_time() - began
        self.steps += 1

    def risk(self) -> float:
        """g(w), on the whole training set."""
        (batch,) = self.train.batches([torch.arange(len(self.train))])
        with torch.no_grad():
            return self.step.objective(None, batch).risk.item()

    def until(self, risk: float, limit: float) -> bool:
        """Descend until the train risk is that low; False if the seconds are used up before."""
        while self.seconds < limit:
            for _ in range(1 if self.full else CHECK):
                self.take()
            if self.risk() <= risk:
                return True
        return False


def cost(overrides: Sequence[str], least: float = 0.1) -> float:
    """Seconds a step, after a first one, over at least ``least`` seconds."""
    descent = Descent(overrides)
    descent.take()
    descent.steps, descent.seconds = 0, 0.0
    while descent.seconds < least:
        descent.take()
    return descent.seconds / descent.steps
