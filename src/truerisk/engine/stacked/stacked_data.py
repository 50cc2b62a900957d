"""The members' samples: one copy of each data set, and an order a member."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.data import BatchPlan
from truerisk.data.split import TensorSplit, as_slice
from truerisk.data.token_rows import TokenSplit
from truerisk.engine.stacked.member_code.compiled_function import AS_THEY_ARE, PickedRows


class StackedSplit:
    """One split of every member's data, all of one shape; equal data is held once.

    What a run reads out of its source batch by batch, members of the same data do, too.

    Args:
        splits: one a member.
        keys: one a member, the same for members with the same data.

    Attributes:
        is_common: whether all members have the same data.
        source: the split of all members, where it is read so.
        reads_source: whether that has its inputs in a tensor.
        x: the tensor that has its inputs; else those of the D data sets that differ, one after
            another, [D · N, …].
        lines: the rows of it in which a source's inputs lie, int64 [N]; None for all.
        standardizer: of what is read there.
        y: the targets.
        which: the data set of each member, [K].
    """

    def __init__(self, splits: Sequence[TensorSplit | TokenSplit], keys: Sequence[str]) -> None:
        unique = list(dict.fromkeys(keys))
        firsts = [splits[keys.index(key)] for key in unique]
        self.size = len(splits[0])
        self.is_common = len(firsts) == 1
        self.source = firsts[0] if self.is_common and firsts[0].keep_source else None
        self.which = torch.tensor([unique.index(key) for key in keys])
        self.reads_source = isinstance(self.source, TensorSplit)
        self.lines, self.standardizer = None, AS_THEY_ARE
        if isinstance(self.source, TokenSplit):
            return
        self.y = _concatenate([split.y for split in firsts])
        if self.source is None:
            self.x = _concatenate([split.x for split in firsts])
        else:
            self.x, self.lines, standardizer = self.source.place
            self.standardizer = standardizer or AS_THEY_ARE

    def select_rows(self, rows: Sequence[int]) -> StackedSplit:
        """Return the same for some of the members."""
        some = copy.copy(self)
        some.which = self.which[list(rows)]
        return some

    def pick_batch(self, index: Tensor, rows: slice = slice(None)) -> Batch | PickedBatch:
        """Pick samples, which are gathered where they are read if that can be.

        Args:
            index: [K, n], on the CPU.
            rows: of the members that they are for.

        Returns:
            x [K, n, …] and y [K, n, …].
        """
        is_shown = self.is_common and not index.stride(0)  # one row, shown K times
        if is_shown or index.stride(1) != 1 or isinstance(self.source, TokenSplit):
            return self.gather_batch(index, rows)
        if not (self.x.is_contiguous() and self.y.is_contiguous()):  # a row is copied as it lies
            return self.gather_batch(index, rows)
        return self._point_to(index, rows)

    def gather_batch(self, index: Tensor, rows: slice = slice(None)) -> Batch:
        """Gather samples: x [K, n, …] and y [K, n, …].

        Args:
            index: [K, n], on the CPU.
            rows: of the members that they are for.
        """
        if self.is_common and len(index) > 1 and not index.stride(0):  # one row, shown K times
            batch = self.gather_batch(index[:1], rows)
            return _show_to(Batch(batch.x[0], batch.y[0]), self.which[rows])
        if self.source is not None:
            batch = self.source.batch(index.reshape(-1))
            return Batch(batch.x.unflatten(0, index.shape), batch.y.unflatten(0, index.shape))
        return self._point_to(index, rows).gather()

    def _point_to(self, index: Tensor, rows: slice) -> PickedBatch:
        if not self.is_common:
            index = index + self.size * self.which[rows, None]
        lines = index if self.lines is None else self.lines[index]
        return PickedBatch(PickedRows(self.x, lines, self.standardizer), PickedRows(self.y, index))

    def slice_batch(self, samples: slice, rows: slice) -> Batch:
        """Slice samples as they stand in the data: x [K, n, …] and y [K, n, …].

        Args:
            samples: which ones.
            rows: the members that they are for.
        """
        if self.source is not None:
            return _show_to(self.source.batch(torch.arange(self.size)[samples]), self.which[rows])
        # views, where members have the same data or one set after the other: nothing is copied
        x, y = (t.unflatten(0, (-1, self.size))[:, samples] for t in (self.x, self.y))
        which = self.which[rows]
        if len(x) == 1:
            return _show_to(Batch(x[0], y[0]), which)
        index = as_slice(which) or which.to(x.device)
        return Batch(x[index], y[index])


class PickedBatch(NamedTuple):
    """A batch of K members whose samples are gathered where they are read.

    Attributes:
        x: inputs [K, n, …].
        y: targets [K, n, …].
    """

    x: PickedRows
    y: PickedRows

    def gather(self) -> Batch:
        """Gather them."""
        return Batch(self.x.pick(), self.y.pick())


def _show_to(batch: Batch, members: Tensor) -> Batch:
    """Show each of some members the same batch."""
    x, y = batch.x, batch.y
    return Batch(x.expand(len(members), *x.shape), y.expand(len(members), *y.shape))


def _concatenate(parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]  # not a copy of it
    return torch.cat(list(parts))


class StackedPlan(BatchPlan):
    """The batches of several members' plans, which differ in nothing but their order.

    What a plan has as indices [n] are columns here, one a member: [n, K].

    Args:
        plans: one a member.
    """

    def __init__(self, plans: Sequence[BatchPlan]) -> None:
        vars(self).update(vars(plans[0]))  # sizes, shares and steps are those of any of them
        self.plans = list(plans)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the members."""
        self.plans = [self.plans[row] for row in rows]

    def order(self, epoch: int) -> Tensor:
        """Return the order [N, K] in which each member takes its samples."""
        # a member's indices lie side by side, as they are read
        return torch.stack([plan.order(epoch) for plan in self.plans]).T


def batch_parts(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch by name, as ``vmap`` takes them."""
    parts = {"x": batch.x, "y": batch.y, "other": batch.other, "share": batch.share}
    return {name: tensor for name, tensor in parts.items() if tensor is not None}
