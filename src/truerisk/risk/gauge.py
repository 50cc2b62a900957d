"""Measuring the risks of a model, in eval mode with its weights held still."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.model import Function
from truerisk.objective import Objective
from truerisk.recipe import Recipe
from truerisk.risk import bayes
from truerisk.risk.estimate import MeanEstimate, Measurement, beside, measure
from truerisk.risk.measured import Measured

if TYPE_CHECKING:
    import lightning as L

BATCH = 1000
"""Samples in one forward pass."""

PILOT = 10_000
"""Fresh samples that tell how many more the true risk needs."""

State = Mapping[str, Tensor] | None


class Gauge:
    """Measures what a run reports; every process takes its share of the samples.

    A ``state`` holds parameters and buffers to measure instead of the model's own.
    """

    def __init__(self, recipe: Recipe, objective: Objective, trainer: L.Trainer) -> None:
        self.recipe, self.data, self.objective = recipe, recipe.data, objective
        self.rank, self.world = trainer.global_rank, trainer.world_size
        self.device = trainer.strategy.root_device

    def splits(self) -> list[str]:
        """The splits there are."""
        return [n for n in ("train", "val", "test") if getattr(self.data, n) is not None]

    def during(self, state: State, epoch: int) -> dict[str, Measured]:
        """What is measured after an epoch: train and validation risk alike, their gap, and J."""
        train, val = self.split("train", state, self.subset), self.split("val", state)
        known = self.known("train"), self.known("val")
        return beside(train, val, epoch, known) | self._distance(state, epoch)

    def finally_(self, name: str, epoch: int | None) -> dict[str, Measured]:
        """What is measured at the end: a whole split, or ``true``, the risk under P itself."""
        if name == "true":
            return self._true(epoch)
        found = self.split(name, None).named(name, epoch, self.known(name))
        return found | self._distance(None, epoch)

    def _distance(self, state: State, epoch: int | None) -> dict[str, Measured]:
        """How far a test function's weights are from a known minimum."""
        model = self.objective.model
        if not isinstance(model, Function) or not len(model.minima):
            return {}
        weights = model.w if state is None else state["w"]
        return {"distance": Measured(float(model.distance(weights)), None, epoch)}

    def known(self, name: str) -> float:
        """How many samples a split is drawn from: all of P's, or those that are all there is."""
        exact = self.recipe.surrogate.task.is_exact(name)
        return len(getattr(self.data, name)) if exact else math.inf

    def split(self, name: str, state: State, index: Tensor | None = None) -> Measurement:
        """Measure a split, or the samples ``index`` of it."""
        split = getattr(self.data, name)
        index = torch.arange(len(split)) if index is None else index
        return self._measured(state, split.batches(index[self.rank :: self.world].split(BATCH)))

    def _measured(self, state: State, batches: Iterable[Batch]) -> Measurement:
        return measure(self.objective, state, batches, self.device)

    @cached_property
    def subset(self) -> Tensor:
        """The fixed part of the training set that is measured after each epoch."""
        size = self.recipe.risk.train_samples or len(self.data.val)
        draw = rng.named_generator(self.recipe.streams.data, "measured")
        return torch.randperm(len(self.data.train), generator=draw)[:size].sort().values

    def training_inputs(self) -> Iterator[Tensor]:
        """All the training inputs, in blocks of even size, as each counts alike."""
        size = len(self.data.train)
        blocks = torch.arange(size).tensor_split(math.ceil(size / BATCH))
        return (batch.x for batch in self.data.train.batches(blocks))

    def _true(self, epoch: int | None) -> dict[str, Measured]:
        """The risk under P, from as many fresh samples as the standard error asked for needs.

        A pilot gives the variance, and the answer comes from fresh draws (Stein 1945); should they
        vary more than the pilot, from more of them. Beside it, on the same draws, the risk of the
        Bayes predictor.
        """
        drawn, found = 0, self._measured(None, self._fresh(PILOT, "pilot"))
        while drawn < self._samples(found):
            drawn = self._samples(found, spare=1.05)  # so that a second try is rare
            found = self._measured(None, self._fresh(drawn, "true risk"))
        return found.named("true", epoch) | self._bayes(self._fresh(drawn, "true risk"))

    def _samples(self, found: Measurement, spare: float = 1.0) -> int:
        """How many samples bring the standard error down to what was asked for, if allowed."""
        options = self.recipe.risk
        needed = max(PILOT, spare * found.risk.variance / options.true_stderr**2)
        return math.ceil(min(options.true_samples, needed))

    def _fresh(self, samples: int, stream: str) -> Iterator[Batch]:
        draw = rng.named_generator(self.recipe.streams.data, stream, self.rank)
        blocks = math.ceil(samples / self.world / BATCH)
        return (self.data.sample(BATCH, draw) for _ in range(blocks))

    def _bayes(self, batches: Iterable[Batch]) -> dict[str, Measured]:
        surrogate = self.recipe.surrogate
        risk, errors = MeanEstimate().to(self.device), MeanEstimate().to(self.device)
        for batch in batches:
            outputs = bayes.optimal_outputs(self.data, surrogate, batch.x)
            risk.update(surrogate(outputs, batch.y))
            wrong = surrogate.errors(outputs, batch.y)
            if wrong is not None:
                errors.update(wrong)
        found: dict[str, Any] = {}
        if bayes.attains_bayes_risk(surrogate):
            found["risk/bayes"] = risk.measured()
        if surrogate.task.error_title is not None:
            found["error/bayes"] = errors.measured()
        return found
