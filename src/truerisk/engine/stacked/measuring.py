"""The risks of many runs at once, as `truerisk.engine.measure` estimates those of one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.batch import Batch
from truerisk.core.deterministic import eval_mode
from truerisk.engine.measure import RiskEstimator, mark_samples
from truerisk.engine.stacked.stacked_data import PickedBatch, StackedSplit
from truerisk.engine.stacked.stacked_objective import StackedObjective
from truerisk.metric import Collector
from truerisk.risk.estimate import (
    GroupedEstimate,
    Marks,
    Measurement,
    Moments,
    compute_moments,
    has_places,
)

VALUES = 2**19
"""Numbers in the widest layer, over all members measured at a time: what stays near the core."""

INPUTS = 2**22
"""Numbers of the samples of all members measured at a time by machine code, which takes one member
after another: no more of them lies side by side."""

LEAST = 4
"""Members measured at a time at least, each of which adds little to the calls it takes."""


class StackedEstimator:
    """Measure runs in eval mode, a few at a time.

    Args:
        estimators: those of the runs.
        feeds: the runs' samples, by the name of the split.
    """

    def __init__(
        self, estimators: Sequence[RiskEstimator], feeds: Mapping[str, StackedSplit]
    ) -> None:
        self.feeds, self.estimators = feeds, list(estimators)
        first = self.estimators[0]
        one = first.data.train.batch(torch.arange(1)).x  # not all inputs, which would be copied
        self.subset = _stack_indices([e.subset for e in self.estimators])
        self.samples = first.block_size
        samples = min(self.samples, self.subset.shape[1])
        widest = widest_layer(first.objective.model, one)
        self.block = max(LEAST, VALUES // (samples * widest))
        self.code_block = max(LEAST, INPUTS // (samples * one.numel()))

    def rows(self, rows: Sequence[int]) -> StackedEstimator:
        """Return the same for some of the rows."""
        some = copy.copy(self)
        some.estimators = [self.estimators[row] for row in rows]
        some.feeds = {name: feed.select_rows(rows) for name, feed in self.feeds.items()}
        some.subset = self.subset[list(rows)]
        return some

    def epoch_risks(
        self, objective: StackedObjective, state: Mapping[str, Tensor]
    ) -> list[tuple[Measurement, Measurement]]:
        """Measure the training subset and the validation set of each row.

        Args:
            objective: J of every row.
            state: parameters and buffers, [K, …].

        Returns:
            A pair of measurements a row.
        """
        train = self.measure_split("train", objective, state, self.subset)
        return list(zip(train, self.measure_split("val", objective, state), strict=True))

    def final_index(self, name: str) -> Tensor | None:
        """Return which samples of a split the end of the runs measures, [K, n]; None for all.

        Args:
            name: of the split.
        """
        rows = [own for e in self.estimators if (own := e.final_index(name)) is not None]
        return _stack_indices(rows) if rows else None

    @torch.no_grad()
    def measure_split(
        self,
        name: str,
        objective: StackedObjective,
        state: Mapping[str, Tensor],
        index: Tensor | None = None,
        thorough: bool = False,
    ) -> list[Measurement]:
        """Measure a split of each row's data, or some of its samples.

        Args:
            name: ``train``, ``val`` or ``test``.
            objective: J of every row.
            state: parameters and buffers, [K, …].
            index: which samples, [K, n]; all by default.
            thorough: whether standard errors of metrics are worth a bootstrap.
        """
        feed, count = self.feeds[name], len(self.estimators)
        in_code = objective.measures_in_code and not thorough
        size = self.code_block if in_code else self.block
        blocks = (slice(i, min(i + size, count)) for i in range(0, count, size))
        found = []
        for rows in blocks:
            collectors = [e.make_collector() for e in self.estimators[rows]]
            keep = thorough and self.estimators[0].keeps_losses(name)
            batches = _batches(feed, index, rows, self.samples)
            chosen = [None] * len(collectors) if index is None else index[rows]
            members = zip(self.estimators[rows], chosen, strict=True)
            marked = [mark_samples(e.recipe, name, part) for e, part in members]
            groups = [GroupedRow(*mark) for mark in marked if mark[1]]
            own = {name: tensor[rows] for name, tensor in state.items()}
            look = partial(objective.measure, own, rows=rows, often=not thorough)
            measured = _measure_rows(batches, look, groups, collectors, keep)
            for measurement, collector in zip(measured, collectors, strict=True):
                if collector is not None:
                    measurement = measurement._replace(metrics=collector.estimate(thorough))
                found.append(measurement)
        return found


def _stack_indices(rows: Sequence[Tensor]) -> Tensor:
    """Stack indices [n] of K members; the same ones are one row, shown K times."""
    if all(torch.equal(row, rows[0]) for row in rows):
        return rows[0].expand(len(rows), -1)
    return torch.stack(list(rows))


@torch.no_grad()
def widest_layer(model: nn.Module, x: Tensor) -> int:
    """Count the numbers in the widest layer of a model for one sample, the sample among them.

    Args:
        model: which is shown the first of them.
        x: samples [n, …].
    """
    sizes = [x[0].numel()]

    def look(_module: nn.Module, _args: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        sizes.append(out.numel())

    handles = [module.register_forward_hook(look) for module in model.modules()]
    with eval_mode(model):
        model(x[:1])
    for handle in handles:
        handle.remove()
    return max(sizes)


class GroupedRow:
    """Take in the losses of one member, whose samples come in groups or have weights.

    Args:
        marks: tells the groups and the weights of samples by their numbers.
        count: how many groups there are.
    """

    def __init__(self, marks: Callable[[Tensor], Marks], count: int) -> None:
        self.marks = marks
        self.risk, self.errors = GroupedEstimate(count), GroupedEstimate(count)

    def update(self, index: Tensor, found: Mapping[str, Tensor]) -> Marks:
        """Add the losses and errors of samples, or of the places in them.

        Args:
            index: the samples' numbers, int64 [n].
            found: what `StackedObjective.measure` has of this member.

        Returns:
            Their marks.
        """
        mark = self.marks(index)
        losses, errors = found.get("reported", found["losses"]), found.get("errors")
        if has_places(mark):
            losses, errors = found["place_losses"], found["place_errors"]
        self.risk.update(losses, *mark)
        if errors is not None:
            self.errors.update(errors, *mark)
        return mark


def _measure_rows(
    batches: Iterator[tuple[Tensor, Batch | PickedBatch]],
    look: Callable[[Batch | PickedBatch], dict[str, Tensor]],
    groups: Sequence[GroupedRow],
    collectors: Sequence[Collector | None],
    keep: bool,
) -> list[Measurement]:
    sums: dict[str, Tensor] = {}
    kept: dict[str, list[Tensor]] = {}
    for index, batch in batches:
        found = look(batch)
        marks: list[Sequence[Tensor | None]] = [()] * len(batch.x)
        for k, row in enumerate(groups):
            marks[k] = row.update(index[k], {key: values[k] for key, values in found.items()})
        places = {key: found.pop(f"place_{key}", None) for key in ("losses", "errors")}
        outputs = found.pop("outputs", None)
        if outputs is not None:
            for k, collector in enumerate(collectors):
                assert collector is not None
                collector.add(outputs[k], batch.y[k], *marks[k][:1])
        for key, values in found.items():
            spread = values if values.ndim == 2 else values[:, None].expand(batch.x.shape[:2])
            sums[key] = sums.get(key, 0) + _sums(spread)
            if keep:
                kept.setdefault(key, []).append(spread)
        for key, part in places.items():
            if keep and part is not None:
                kept[key][-1] = part
        del batch  # the next one is read into its memory
    names = {"risk": "reported" if "reported" in kept else "losses", "error": "errors"}
    whole = {name: torch.cat(kept[key], 1) for name, key in names.items() if key in kept}
    read = {key: compute_moments(total).tolist() for key, total in sums.items()}
    measured = [_measurement_of(read, k) for k in range(len(collectors))]
    for k, row in enumerate(groups):
        errors = None if measured[k].errors is None else row.errors
        measured[k] = measured[k]._replace(risk=row.risk, errors=errors)
    return [
        measurement._replace(samples={key: part[k] for key, part in whole.items()})
        for k, measurement in enumerate(measured)
    ]


def _batches(
    feed: StackedSplit, index: Tensor | None, rows: slice, size: int
) -> Iterator[tuple[Tensor, Batch | PickedBatch]]:
    """The samples ``index`` [K, n] of some members, or all there are, with their numbers [K, n]."""
    if index is None:
        members = rows.stop - rows.start
        for start in range(0, feed.size, size):
            numbers = torch.arange(start, min(start + size, feed.size)).expand(members, -1)
            yield numbers, feed.slice_batch(slice(start, start + size), rows)
    else:
        for part in index[rows].split(size, 1):
            yield part, feed.pick_batch(part, rows)


def _sums(values: Tensor) -> Tensor:
    """[n, Σl, Σl²] of each row, in double precision."""
    values = values.double()
    count = values.new_full((len(values),), values.shape[1])
    return torch.stack([count, values.sum(1), values.square().sum(1)], 1)


def _measurement_of(read: Mapping[str, list[list[float]]], k: int) -> Measurement:
    penalties = {key[8:]: rows[k][1] for key, rows in read.items() if key.startswith("penalty/")}
    errors = Moments(*read["errors"][k]) if "errors" in read else None
    losses = Moments(*read["losses"][k])
    if "reported" not in read:
        return Measurement(losses, errors, penalties)
    return Measurement(Moments(*read["reported"][k]), errors, penalties, losses.mean)
