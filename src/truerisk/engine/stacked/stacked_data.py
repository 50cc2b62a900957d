"""The members' samples: one copy of each data set, and an order a member."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.data import BatchPlan
from truerisk.data.split import TensorSplit, as_slice


class StackedSplit:
    """One split of every member's data, all of one shape; equal data is held once.

    ``keys`` tell which members have the same data.
    """

    def __init__(self, splits: Sequence[TensorSplit], keys: Sequence[str]) -> None:
        unique = list(dict.fromkeys(keys))
        firsts = [splits[keys.index(key)] for key in unique]
        self.size = len(splits[0])
        self.x = _joined([split.x for split in firsts])
        self.y = _joined([split.y for split in firsts])
        self.which = torch.tensor([unique.index(key) for key in keys])

    def select_rows(self, rows: Sequence[int]) -> StackedSplit:
        """The same for some of the members."""
        some = copy.copy(self)
        some.which = self.which[list(rows)]
        return some

    def gather_batch(self, index: Tensor, rows: slice = slice(None)) -> Batch:
        """Samples ``index`` [K, n] of some members: x [K, n, …], y [K, n, …]."""
        flat = (index + self.size * self.which[rows, None]).reshape(-1).to(self.x.device)
        x, y = self.x.index_select(0, flat), self.y.index_select(0, flat)
        return Batch(x.unflatten(0, index.shape), y.unflatten(0, index.shape))

    def slice_batch(self, samples: slice, rows: slice) -> Batch:
        """Some samples of some members, as they stand in their data."""
        x, y = (t.unflatten(0, (-1, self.size))[:, samples] for t in (self.x, self.y))
        if len(x) == 1:
            members = len(self.which[rows])
            return Batch(x.expand(members, *x.shape[1:]), y.expand(members, *y.shape[1:]))
        which = self.which[rows]
        own = as_slice(which)
        taken = which.to(x.device) if own is None else own
        return Batch(x[taken], y[taken])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class StackedPlan(BatchPlan):
    """The batches of several members' plans, which differ in nothing but their order.

    What a plan has as indices [n] are columns here, one a member: [n, K].
    """

    def __init__(self, plans: Sequence[BatchPlan]) -> None:
        vars(self).update(vars(plans[0]))
        self.plans = list(plans)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the members."""
        self.plans = [self.plans[row] for row in rows]

    def order(self, epoch: int) -> Tensor:
        """The order [N, K] in which each member takes its samples."""
        return torch.stack([plan.order(epoch) for plan in self.plans], 1)
