"""Measuring the risks of many members, as ``truerisk.risk.gauge`` measures those of one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.batch import Batch
from truerisk.engine.stacked.member import Member
from truerisk.engine.stacked.stacked_data import StackedSplit
from truerisk.engine.stacked.stacked_objective import StackedObjective
from truerisk.objective import Objective
from truerisk.risk.estimate import Measurement, Moments, moments
from truerisk.risk.gauge import BATCH, Gauge

VALUES = 2**19
"""Numbers in the widest layer, over all members measured at a time: what stays near the core."""

LEAST = 4
"""Members measured at a time at least, each of which adds little to the calls it takes."""


class Measuring:
    """Measures members in eval mode, a few at a time."""

    def __init__(self, members: Sequence[Member], feeds: Mapping[str, StackedSplit]) -> None:
        self.feeds = feeds
        self.gauges = [gauge(member) for member in members]
        first = self.gauges[0]
        self.subset = torch.stack([g.subset for g in self.gauges])
        samples = min(BATCH, self.subset.shape[1])
        self.block = max(
            LEAST, VALUES // (samples * widest(first.objective.model, first.data.train.x))
        )

    def rows(self, rows: Sequence[int]) -> Measuring:
        """The same for some of the members."""
        some = copy.copy(self)
        some.gauges = [self.gauges[row] for row in rows]
        some.feeds = {name: feed.select_rows(rows) for name, feed in self.feeds.items()}
        some.subset = self.subset[list(rows)]
        return some

    def epoch(
        self, objective: StackedObjective, state: Mapping[str, Tensor]
    ) -> list[tuple[Measurement, Measurement]]:
        """Train and validation risk of each member at its ``state``."""
        train = self.split("train", objective, state, self.subset)
        return list(zip(train, self.split("val", objective, state), strict=True))

    @torch.no_grad()
    def split(
        self,
        name: str,
        objective: StackedObjective,
        state: Mapping[str, Tensor],
        index: Tensor | None = None,
    ) -> list[Measurement]:
        """Measure a split of each member's data, or the samples ``index`` [K, n] of it."""
        feed, count = self.feeds[name], len(self.gauges)
        blocks = (slice(i, min(i + self.block, count)) for i in range(0, count, self.block))
        return [m for rows in blocks for m in _measured(feed, objective, state, index, rows)]


@torch.no_grad()
def widest(model: nn.Module, x: Tensor) -> int:
    """Numbers in the widest layer of a model, the samples among them, for one sample."""
    sizes = [x[0].numel()]

    def look(_module: nn.Module, _args: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        sizes.append(out.numel())

    handles = [module.register_forward_hook(look) for module in model.modules()]
    was_training = model.training
    model.eval()(x[:1])
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return max(sizes)


def gauge(member: Member) -> Gauge:
    """The gauge of an ordinary run."""
    strategy = SimpleNamespace(root_device=member.place.device)
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    recipe = member.recipe
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    return Gauge(recipe, objective, trainer)


def _measured(
    feed: StackedSplit,
    objective: StackedObjective,
    state: Mapping[str, Tensor],
    index: Tensor | None,
    rows: slice,
) -> list[Measurement]:
    own = {name: tensor[rows] for name, tensor in state.items()}
    sums: dict[str, Tensor] = {}
    for batch in _batches(feed, index, rows):
        found = objective.measure(own, batch, rows)
        for key, values in found.items():
            spread = values if values.ndim == 2 else values[:, None].expand(batch.x.shape[:2])
            sums[key] = sums.get(key, 0) + _sums(spread)
    read = {key: moments(total).tolist() for key, total in sums.items()}
    return [_of_member(read, k) for k in range(rows.stop - rows.start)]


def _batches(feed: StackedSplit, index: Tensor | None, rows: slice) -> Iterator[Batch]:
    """The samples ``index`` [K, n] of some members, or all there are."""
    if index is None:
        for start in range(0, feed.size, BATCH):
            yield feed.slice_batch(slice(start, start + BATCH), rows)
    else:
        for part in index[rows].split(BATCH, 1):
            yield feed.gather_batch(part, rows)


def _sums(values: Tensor) -> Tensor:
    """[n, Σl, Σl²] of each row, in double precision."""
    values = values.double()
    count = values.new_full((len(values),), values.shape[1])
    return torch.stack([count, values.sum(1), values.square().sum(1)], 1)


def _of_member(read: Mapping[str, list[list[float]]], k: int) -> Measurement:
    penalties = {key[8:]: rows[k][1] for key, rows in read.items() if key.startswith("penalty/")}
    errors = Moments(*read["errors"][k]) if "errors" in read else None
    return Measurement(Moments(*read["losses"][k]), errors, penalties)
