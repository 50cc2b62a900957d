"""The risks of an epoch and of the end, in eval mode with the weights held still."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.core.deterministic import (
    frozen_modules,
    refresh_statistics,
    settle_singular_vectors,
    spread_ties,
)
from truerisk.data import RunData
from truerisk.data.plan import IndexBlocks
from truerisk.data.split import TensorSplit
from truerisk.metric import Collector
from truerisk.metric.collector import deal_back
from truerisk.metric.functionals import combine_influences
from truerisk.metric.metric import MetricEstimate
from truerisk.model import Function, Linear
from truerisk.objective import Objective
from truerisk.recipe import Recipe
from truerisk.risk import bayes
from truerisk.risk.estimate import (
    GroupedEstimate,
    Marks,
    MeanEstimate,
    Measurement,
    epoch_metrics,
    make_estimate,
    measure_batches,
    name_gap,
)
from truerisk.risk.measured import Measured
from truerisk.task.task import BATCH

if TYPE_CHECKING:
    from truerisk.engine.host import Host

PILOT = 10_000
"""Fresh samples that tell how many more the true risk needs."""

TRUE_METRICS = 100_000
"""Fresh samples whose predictions are kept for metrics under P."""

HELD_BYTES = 2**24
"""Inputs of a split that are kept as they are measured after each epoch, rather than read again."""

SPLITS = ("train", "val", "test")
FINAL = ("test", "true", "bayes")
"""What only the end of a run measures, by the last part of its name."""
CONSTANT = "constant/"
"""Before the names of what the best constant comes to, which only the end measures too."""

State = Mapping[str, Tensor] | None


def split_names(data: RunData) -> list[str]:
    """Name the splits that a run's data has."""
    return [name for name in SPLITS if getattr(data, name) is not None]


EXPLAINED = "r2/"
"""Before the split whose variance a squared error is held against."""


def is_final(name: str) -> bool:
    """Tell whether only the end of a run measures what has this name."""
    return name.rpartition("/")[2] in FINAL or name.startswith((CONSTANT, EXPLAINED))


def mark_samples(
    recipe: Recipe, name: str, index: Tensor | None = None
) -> tuple[Callable[[Tensor], Marks], int]:
    """Return what tells the groups of a split's samples, and how many groups there are.

    Args:
        recipe: with the data, and whether risks are weighted.
        name: of the split.
        index: which samples are measured, [n]; all by default.
    """
    numbers, weights = recipe.data.groups.get(name), read_shares(recipe, name)
    if numbers is None:
        if weights is None:
            return lambda index: (index, None), 0
        numbers = torch.arange(len(weights))  # independent: each its own group

    def share(some: Tensor) -> Tensor | None:
        return None if weights is None else weights[some]

    if index is None:
        return lambda some: (numbers[some], share(some)), int(numbers.max()) + 1
    # of a million documents a part of the samples may be of a hundred
    seen = torch.cat([numbers[block].unique() for block in index.split(1024)]).unique()
    return lambda some: (torch.searchsorted(seen, numbers[some]), share(some)), len(seen)


def read_shares(recipe: Recipe, name: str) -> Tensor | None:
    """Return how much each sample of a split counts in what is reported; None for all alike.

    Args:
        recipe: with the data and the loss.
        name: of the split.
    """
    if not recipe.risk.weighted:
        return None
    weights, of_class = recipe.data.weights.get(name), recipe.surrogate.class_weight
    y = getattr(recipe.data, name).y
    if weights is None:
        weights = torch.ones(len(y), dtype=torch.float64)
    if of_class is not None and y.ndim == 1:
        # a Trainer of the user's may have brought the loss to another device
        weights = weights * of_class.to(y.device)[y].to(weights)
    return weights


class RiskEstimator:
    """Estimate what a run reports; every process takes its share of the samples.

    A ``state`` holds parameters and buffers to measure instead of the model's own.

    Args:
        recipe: the run's parts.
        objective: J.
        host: the processes that share the work, and the device.

    Attributes:
        frozen: modules that are in eval mode while the model trains.
        inputs: gives the training inputs in blocks, where they are not those of the recipe's data.
    """

    def __init__(self, recipe: Recipe, objective: Objective, host: Host) -> None:
        # as the model begins: whoever measures it puts all of it into eval mode
        self.frozen = frozen_modules(objective.model)
        self.inputs: Callable[[], Iterable[Tensor]] | None = None
        self.recipe, self.data, self.objective = recipe, recipe.data, objective
        self.rank, self.world, self.device = host.rank, host.world_size, host.device
        self.shards = host.shards
        self.gather = host.gather
        self.tables: dict[str, dict[str, Any]] = {}
        """Metrics that are tables rather than numbers, by name and split, once it is over."""
        self.losses: dict[str, Tensor] = {}
        """Of each sample of a tested fold, once it is over; see `spread_losses`."""
        self._squared: dict[str, Tensor] = {}
        self._held: dict[str, list[Batch]] = {}

    def epoch_risks(self, state: State, epoch: int) -> dict[str, Measured]:
        """Measure after an epoch: train and validation risk alike, their gap, and J.

        Args:
            state: what to measure instead of the model's own weights.
            epoch: epochs that are over.

        Returns:
            Values with their standard errors, by name.
        """
        train = self.measure_split("train", state, self.subset, hold=True)
        val = self.measure_split("val", state, hold=True)
        return self.join_risks(train, val, epoch) | self.measure_distance(state, epoch)

    def join_risks(self, train: Measurement, val: Measurement, epoch: int) -> dict[str, Measured]:
        """Name the measurements of both splits, with their gap, J and the penalties."""
        sizes = self.population_size("train"), self.population_size("val")
        return epoch_metrics(train, val, epoch, sizes)

    def final_risks(self, epoch: int | None) -> dict[str, Measured]:
        """Measure all there is at the model's own weights, which should be the best ones.

        Args:
            epoch: after which epoch they were the weights.

        Returns:
            Risks on the splits and under P where it is known, and the gap, by name.
        """
        risks: dict[str, Measured] = {}
        for name in split_names(self.data):
            split = self.measure_split(name, None, self.final_index(name), thorough=True)
            risks |= self.name_final(name, split, epoch)
            risks |= self.measure_distance(None, epoch)
        risks |= self.true_risk(epoch)
        return risks | name_gap(risks) | self.constant_risks() | self.shares_explained(risks)

    def constant_risks(self) -> dict[str, Measured]:
        """Measure the constant that is best on the training targets: what no learning comes to.

        Returns:
            Its risks, errors and metrics by name, below ``constant/``; nothing where the task has
            none. Each metric is that of the constant which is best by it on the training targets.
        """
        surrogate, risks = self.recipe.surrogate, dict[str, Measured]()
        if self.data.train is None or not surrogate.task.has_samples:
            return {}
        found = bayes.fit_constant(surrogate, self.data.train.y, self.data.population)
        if found is None:
            return {}
        chosen = self._choose_constants(found)
        for name in split_names(self.data):
            y, index = getattr(self.data, name).y, self.final_index(name)
            index = torch.arange(len(y)) if index is None else index
            # every process has all the targets, so each counts its share of them
            own = index[self.rank :: self.world]
            y = y[own.to(y.device)]
            marks, groups = mark_samples(self.recipe, name, self.final_index(name))
            mark = marks(own) if groups else ()
            risk, errors = make_estimate(self.device, groups), None
            risk.update(bayes.constant_losses(surrogate, found[0], y), *mark)
            wrong = surrogate.compute_errors(found[1].expand(len(y), *found[1].shape[1:]), y)
            if wrong is not None:
                errors = make_estimate(self.device, groups)
                errors.update(wrong, *mark)
            metrics = self._constant_metrics(chosen, y, *mark[:1])
            measured = Measurement(risk, errors, {}, None, metrics)
            risks |= measured.name_risks(name, None, self.population_size(name))
        return {f"{CONSTANT}{name}": risk for name, risk in risks.items()}

    def _choose_constants(self, found: Sequence[Tensor]) -> dict[str, Tensor]:
        """Choose the constant that is best by each metric on the training targets."""
        surrogate, chosen = self.recipe.surrogate, dict[str, Tensor]()
        for name, metric in self.recipe.metrics.items():
            if not metric.parts:  # a table
                continue
            outputs = bayes.choose_constant(surrogate, metric, found, self.data.train.y)
            if outputs is not None:
                chosen[name] = outputs
        return chosen

    def _constant_metrics(
        self, chosen: Mapping[str, Tensor], y: Tensor, groups: Tensor | None = None
    ) -> dict[str, MetricEstimate]:
        """Measure the constants chosen by each metric on some targets of this process's."""
        measured = dict[str, MetricEstimate]()
        for name, outputs in chosen.items():
            collector = Collector({name: self.recipe.metrics[name]}, self.recipe.surrogate)
            collector.add(outputs.expand(len(y), *outputs.shape[1:]), y, groups)
            measured |= collector.estimate(gather=self.gather)
        return measured

    def shares_explained(self, risks: Mapping[str, Measured]) -> dict[str, Measured]:
        """Return R² = 1 − Σ(y − f)² / Σ(y − ȳ)² on each split, ȳ its own mean, for squared error.

        With losses l of mean m and squared distances v from ȳ of mean V, R² = 1 − m/V, and a sample
        changes it by ψ = (m(v − V)/V − (l − m))/V, whose spread is its error (the infinitesimal
        jackknife; ȳ, which V is least at, adds nothing).

        Args:
            risks: mean squared errors of the splits, by name.
        """
        shares: dict[str, Measured] = {}
        for name in split_names(self.data) if self._explains else ():
            y = self._final_part(name, getattr(self.data, name).y).double().cpu()
            weights = self._final_part(name, read_shares(self.recipe, name))
            share = torch.ones(len(y), dtype=y.dtype) if weights is None else weights.double().cpu()
            share = share / share.mean()
            wide = share.view(-1, *[1] * (y.ndim - 1))
            distances = (y - (wide * y).mean(0)).square().flatten(1).mean(1)
            spread, risk = float((share * distances).mean()), risks[f"risk/{name}"]
            if not spread > 0:
                continue
            value, stderr = 1 - risk.value / spread, 0.0
            if left := 1 - len(y) / self.population_size(name):
                moved = share * (distances - spread) * risk.value / spread
                influences = (moved - (self._squared[name] - risk.value)) / spread
                groups = self._final_part(name, self.data.groups.get(name))
                stderr = float(combine_influences(influences[:, None], groups)) * math.sqrt(left)
            shares[f"{EXPLAINED}{name}"] = Measured(value, stderr, risk.epoch, risk.size)
        return shares

    def name_final(self, name: str, split: Measurement, epoch: int | None) -> dict[str, Measured]:
        """Name what the end of a run measures of a split, and keep its tables.

        Args:
            name: of the split.
            split: what was measured.
            epoch: after which epoch the weights were reached.
        """
        for key, estimate in split.metrics.items():
            if estimate.table is not None:
                self.tables.setdefault(key, {})[name] = estimate.table
        if split.samples:
            whole = self.spread_losses(name, split.samples)
            self._squared[name] = whole["risk"].double()
            if name == "test" and self.data.folds is not None:
                self.losses = whole | {
                    "/".join(filter(None, ["metric", key, part])): values.float()
                    for key, estimate in split.metrics.items()
                    for part, values in estimate.samples.items()
                }
        return split.name_risks(name, epoch, self.population_size(name))

    def keeps_losses(self, name: str) -> bool:
        """Tell whether losses of samples are kept: folds are pooled by them, R² needs them.

        Args:
            name: of the split.
        """
        return (name == "test" and self.data.folds is not None) or self._explains

    @property
    def _explains(self) -> bool:
        return isinstance(self.recipe.surrogate.loss, torch.nn.MSELoss)

    def spread_losses(self, name: str, samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of all samples of a split, in their order, for a report to pool.

        A weighted mean is that of ``m + n wᵢ(lᵢ − m)/Σw``, whose spread gives its error too.

        Args:
            name: of the split.
            samples: losses and errors that this process measured, by name.

        Returns:
            ``risk`` and ``error`` [n], or those of all places in a row, and the numbers of their
            ``group``, if there are any.
        """
        shares = self.gather({key: value.double().cpu() for key, value in samples.items()})
        whole = {key: deal_back([share[key] for share in shares]) for key in samples}
        weights = self._final_part(name, read_shares(self.recipe, name))
        if weights is not None:
            share = weights.double().cpu() / weights.double().mean().cpu()
            for key, values in whole.items():
                wide = share.view(-1, *[1] * (values.ndim - 1))
                mean = (wide * values).mean()
                whole[key] = mean + wide * (values - mean)
        whole = {key: values.float() for key, values in whole.items()}
        groups = self._final_part(name, self.data.groups.get(name))
        if groups is None:
            return whole
        # values of places, where groups are theirs
        return {key: part.flatten() for key, part in {**whole, "group": groups.int()}.items()}

    def measure_distance(self, state: State, epoch: int | None) -> dict[str, Measured]:
        """Measure how far a test function's weights are from a known minimum."""
        model = self.objective.model
        if not isinstance(model, Function) or not len(model.minima):
            return {}
        weights = model.w if state is None else state["w"]
        return {"distance": Measured(float(model.distance(weights)), None, epoch)}

    def population_size(self, name: str) -> float:
        """Count the samples a split is drawn from: infinite for P's, else all there are."""
        exact = self.recipe.surrogate.task.is_exact(name)
        return len(getattr(self.data, name)) if exact else math.inf

    def measure_split(
        self,
        name: str,
        state: State,
        index: Tensor | None = None,
        thorough: bool = False,
        hold: bool = False,
    ) -> Measurement:
        """Measure a split, or some of its samples.

        Args:
            name: ``train``, ``val`` or ``test``.
            state: what to measure instead of the model's own weights.
            index: which samples, [n]; all by default.
            thorough: whether standard errors of metrics are worth a bootstrap.
            hold: whether the same samples of this split are measured again and again.
        """
        split = getattr(self.data, name)
        count = len(split) if index is None else len(index)
        plan: Sequence[Tensor] = IndexBlocks(
            range(count)[self.rank :: self.world], self.block_size, self._least_blocks(count)
        )
        if index is not None:
            plan = [index[places] for places in plan]
        marks, groups = mark_samples(self.recipe, name, index)
        parts = (marks(one) for one in plan) if groups else None
        keep = thorough and self.keeps_losses(name)
        batches = self._read_blocks(name, plan, hold)
        return self._measured(state, batches, thorough, None, parts, groups, keep)

    def _read_blocks(self, name: str, plan: Sequence[Tensor], hold: bool) -> Iterable[Batch]:
        """Read blocks of a split; those of each epoch, where they are small, once for all."""
        split = getattr(self.data, name)
        # others may give other inputs each time
        if not (hold and isinstance(split, TensorSplit)):
            return split.batches(plan)
        if name not in self._held:
            size = len(plan) * split.batch(plan[0]).x.nbytes
            self._held[name] = list(split.batches(plan)) if size <= HELD_BYTES else []
        return self._held[name] or split.batches(plan)

    def _least_blocks(self, count: int) -> int:
        """Return how many blocks each process measures at least, of so many samples in all."""
        # each layer of shards waits for all processes: who has fewer blocks measures empty ones
        return math.ceil(count / self.world / self.block_size) if self.shards else 1

    @property
    def block_size(self) -> int:
        """How many samples at most go through the model at once."""
        return self.recipe.surrogate.task.block_size(self.data.info.input_shape)

    def make_collector(self, limit: int | None = None) -> Collector | None:
        """Make what keeps predictions for metrics; None where there are no metrics.

        Args:
            limit: so many samples are kept at most.
        """
        if not self.recipe.metrics or limit == 0:
            return None
        return Collector(self.recipe.metrics, self.objective.surrogate, limit)

    def _measured(
        self,
        state: State,
        batches: Iterable[Batch],
        thorough: bool = False,
        limit: int | None = None,
        marks: Iterable[Marks] | None = None,
        groups: int = 0,
        keep: bool = False,
    ) -> Measurement:
        collector = self.make_collector(limit)
        measured = (self.objective, state, batches, self.device, marks, groups)
        return measure_batches(*measured, collector, thorough, self.gather, keep)

    @cached_property
    def subset(self) -> Tensor:
        """Indices [n] of the fixed part of the training set that is measured after each epoch."""
        return self._draw_subset(self.recipe.risk.train_samples or len(self.data.val))

    def final_index(self, name: str) -> Tensor | None:
        """Return which samples of a split the end of a run measures, ascending [n]; None for all.

        Args:
            name: of the split.
        """
        size = self.recipe.risk.final_train_samples
        if name != "train" or size is None or size >= len(self.data.train):
            return None
        return self._draw_subset(size)

    def _draw_subset(self, size: int) -> Tensor:
        """Draw training samples, of which a smaller number is a part of a larger one."""
        draw = rng.named_generator(self.recipe.streams.data, "measured")
        return rng.draw_permutation(len(self.data.train), draw)[:size].long().sort().values

    def _final_part(self, name: str, values: Any) -> Any:
        """Select what the end of a run measures of values [N] of a split, if there are any."""
        index = self.final_index(name)
        return values if index is None or values is None else values[index]

    def settle_state(self, state: Mapping[str, Tensor], refresh: bool) -> dict[str, Tensor]:
        """Work out what of a state follows from its weights, as the model would have it.

        Args:
            state: parameters and running statistics by name, perhaps some of the model's.
            refresh: whether its batch-norm statistics are those of other weights.

        Returns:
            All parameters and buffers, under all their names.
        """
        model = self.objective.model
        whole = spread_ties(model, {**model.state_dict(), **state})
        whole = settle_singular_vectors(model, whole)
        if refresh:
            # the same masks each time, and none of training's
            stream = rng.named_generator(self.recipe.streams.noise, "statistics")
            seed = stream.initial_seed()
            inputs = self.training_inputs() if self.inputs is None else self.inputs()
            whole = refresh_statistics(model, whole, inputs, seed, self.frozen)
        return spread_ties(model, whole)

    def training_inputs(self) -> Iterator[Tensor]:
        """Yield all the training inputs, in blocks of even size that are random parts of them."""
        order = torch.arange(len(self.data.train))
        if len(order) > self.block_size:  # data is often sorted, by its classes for one
            draw = rng.named_generator(self.recipe.streams.data, "statistics")
            order = torch.randperm(len(order), generator=draw)
        blocks = order.tensor_split(math.ceil(len(order) / self.block_size))
        return (batch.x for batch in self.data.train.batches(blocks))

    def true_risk(self, epoch: int | None) -> dict[str, Measured]:
        """Measure the risk under P, from as many fresh samples as its standard error needs.

        A pilot gives the variance, and the answer comes from fresh draws (Stein 1945); should they
        vary more than the pilot, from more of them. Beside it, on the same draws, the risk of the
        Bayes predictor. Nothing where P is not known; without samples where it is an integral in
        closed form.
        """
        # under P there are no weights
        if self.data.population is None or self.recipe.risk.weighted:
            return {}
        if self._explains and not self.recipe.metrics and isinstance(self.objective.model, Linear):
            model, surrogate = self.objective.model, self.recipe.surrogate
            exact = bayes.integrate_squared_error(self.data, surrogate, model)
            if exact is not None:
                risk, least = exact
                return {
                    "risk/true": Measured(risk, 0.0, epoch),
                    "risk/bayes": Measured(least, 0.0, None),
                }
        drawn, found = 0, self._measured(None, self._fresh(PILOT, "pilot"), limit=0)
        while drawn < self._samples(found):
            drawn = self._samples(found, spare=1.05)  # so that a second try is rare
            fresh = self._fresh(drawn, "true risk")
            found = self._measured(None, fresh, limit=TRUE_METRICS)
        return found.name_risks("true", epoch) | self._bayes(self._fresh(drawn, "true risk"))

    def _samples(self, found: Measurement, spare: float = 1.0) -> int:
        """How many samples bring the standard error down to what was asked for, if allowed."""
        options = self.recipe.risk
        assert not isinstance(found.risk, GroupedEstimate)  # draws of P are independent
        needed = max(PILOT, spare * found.risk.variance / options.true_stderr**2)
        return math.ceil(min(options.true_samples, needed))

    def _fresh(self, samples: int, stream: str) -> Iterator[Batch]:
        draw = rng.named_generator(self.recipe.streams.data, stream, self.rank)
        size = self.block_size
        for _ in range(math.ceil(samples / self.world / BATCH)):
            # drawn by the thousand whatever goes through the model, as the draws depend on it
            fresh = self.data.sample(BATCH, draw)
            yield from map(Batch, fresh.x.split(size), fresh.y.split(size))

    def _bayes(self, batches: Iterable[Batch]) -> dict[str, Measured]:
        surrogate = self.recipe.surrogate
        risk, errors = MeanEstimate(self.device), MeanEstimate(self.device)
        for batch in batches:
            outputs = bayes.predict_bayes(self.data, surrogate, batch.x)
            risk.update(surrogate.report_losses(surrogate(outputs, batch.y), outputs, batch.y))
            wrong = surrogate.compute_errors(outputs, batch.y)
            if wrong is not None:
                errors.update(wrong)
        found: dict[str, Any] = {}
        if bayes.attains_bayes_risk(surrogate):
            found["risk/bayes"] = risk.to_measured()
        if surrogate.task.error_title is not None:
            found["error/bayes"] = errors.to_measured()
        return found
