"""Which samples every optimizer step takes, on every process, recomputable; and as dataloaders."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from truerisk.core.errors import ConfigError
from truerisk.core.rng import draw_permutation, named_generator
from truerisk.data.split import LoaderSplit, Split, TensorSplit, WeightedSplit, cast, keep_batch
from truerisk.data.token_rows import TokenSplit

STEPS_AT_ONCE = 4096
"""Steps whose indices are cut and held at a time: of an epoch on large data there are millions."""


def check_batch_size(batch_size: int | str) -> int | str:
    """Return the batch size, if it is a positive whole number or ``full``.

    Raises:
        ConfigError: it is anything else.
    """
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if batch_size == "full" or (whole and int(batch_size) >= 1):
        return batch_size
    raise ConfigError(
        f"data.batch_size is {batch_size!r}: give a whole number of at least 1, or full"
    )


class BatchPlan:
    """The mini-batches of every epoch.

    A step takes ``accumulate`` micro-batches of ``batch_size`` samples, counted over all ``world``
    processes; the last step of an epoch takes what is left. Process ``rank`` gets every world-th
    sample of each micro-batch, with the share its mean has in the step:

        share = n_local · world / n_step,

    so that Σ share · mean over the micro-batches, averaged over the processes, is the mean over the
    step. The order of epoch e comes from (seed, e) alone. ``full`` takes the samples in their own
    order, one step an epoch, cut into ``accumulate`` micro-batches. Where a micro-batch has fewer
    samples than there are processes, those left out get its first sample with share 0. Less than
    ``least`` samples that are left of an epoch or a step join the micro-batch before them.

    Args:
        n: training samples.
        batch_size: samples a micro-batch, over all processes, or ``full``.
        accumulate: micro-batches a step.
        seed: of the order.
        rank: this process's number.
        world: processes there are.
        least: samples of a micro-batch, over all processes.
        draws: chances of each sample, [n], by which an epoch's n are drawn with replacement; None
            where it takes each once.

    Attributes:
        steps_per_epoch: optimizer steps in one pass through the data.

    Raises:
        ConfigError: ``batch_size`` or ``accumulate`` is not a positive whole number (or ``full``),
            or gives micro-batches below ``least``.

    >>> plan = BatchPlan(5, 2, accumulate=2, seed=0)
    >>> plan.steps_per_epoch
    2
    >>> [[(len(index), share) for index, share in step] for step in plan.epoch(0)]
    [[(2, 0.5), (2, 0.5)], [(1, 1.0)]]
    """

    def __init__(
        self,
        n: int,
        batch_size: int | str,
        accumulate: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        least: int = 1,
        draws: Tensor | None = None,
    ) -> None:
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise ConfigError(f"step.accumulate is {accumulate!r}: give a whole number ≥ 1")
        if n < 1:
            raise ConfigError("the training split is empty: lower data.val and data.test")
        self.n, self.seed, self.rank, self.world = n, seed, rank, world
        self.full = check_batch_size(batch_size) == "full"
        self.micro = math.ceil(n / accumulate) if self.full else min(int(batch_size), n)
        self.step_size = n if self.full else min(self.micro * accumulate, n)
        self.least, self.draws = least, draws
        if self.full and draws is not None:
            raise ConfigError(
                "data.sampler draws mini-batches, and data.batch_size=full takes all samples: set "
                "data.sampler=null (loss.weight or data.source.weight weigh them)"
            )
        self.steps_per_epoch = len(self.cut(n, self.step_size))
        if self.micro < least:
            raise ConfigError(
                f"batch norm needs two samples in each process's mini-batch, and a mini-batch has "
                f"{self.micro} over {world} of them: raise data.batch_size to {least} or more"
            )

    @property
    def smallest(self) -> int:
        """The number of samples in the smallest micro-batch, over all processes."""
        steps = {*self.cut(self.n, self.step_size)}
        return min(size for step in steps for size in self.cut(step, self.micro))

    def cut(self, n: int, size: int) -> list[int]:
        """Cut n samples into parts of a size, with what is left of them in the last one.

        >>> BatchPlan(7, 3).cut(7, 3), BatchPlan(7, 3, least=2).cut(7, 3)
        ([3, 3, 1], [3, 4])
        """
        sizes = [size] * (n // size)
        if left := n % size:
            sizes.append(left)
        if len(sizes) > 1 and sizes[-1] < self.least:
            last = sizes.pop()
            sizes[-1] += last
        return sizes

    def order(self, epoch: int) -> Tensor:
        """Return the order [n] in which the epoch takes the samples, int32 where that is enough."""
        # not permuted: the sum over all samples would differ in its last bits each epoch
        if self.full:
            return torch.arange(self.n)
        draw = named_generator(self.seed, "order", epoch)
        if self.draws is None:
            return draw_permutation(self.n, draw)
        # not multinomial, which takes 2^24 samples at most
        ends = self.draws.double().cumsum(0)
        at = torch.rand(self.n, generator=draw, dtype=torch.float64) * ends[-1]
        return torch.searchsorted(ends, at, right=True).clamp(max=self.n - 1)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[Tensor, float]]]:
        """Yield the micro-batches (indices, share) of this process, one list a step.

        Args:
            epoch: counted from 0.
            start_step: steps of it that are over.
        """
        # a run that goes on within an epoch takes what is left of the same order
        sizes = self.cut(self.n, self.step_size)[start_step:]
        if not sizes:
            return  # splitting nothing gives one empty step
        rest = self.order(epoch)[start_step * self.step_size :]
        for first in range(0, len(sizes), STEPS_AT_ONCE):
            some = sizes[first : first + STEPS_AT_ONCE]
            block, rest = rest[: sum(some)].long(), rest[sum(some) :]
            for step in block.split(some):
                micros: tuple[Tensor, ...] = (step,)
                if len(step) > self.micro:
                    micros = step.split(self.cut(len(step), self.micro))
                yield [self._take_share(micro, len(step)) for micro in micros]

    def _take_share(self, micro: Tensor, n_step: int) -> tuple[Tensor, float]:
        if self.world == 1:
            return micro, len(micro) / n_step
        local = micro[self.rank :: self.world]
        # every process must take part in the step, or the others wait for it forever
        if not len(local):
            return micro[:1], 0.0
        return local, len(local) * self.world / n_step


class IndexBlocks(Sequence[Tensor]):
    """Indices in blocks, int64 [m] each, none of which is held.

    Args:
        indices: all of them; none make one block that is empty.
        size: of a block, but for the last.
        least: how many blocks there are at least, the last ones empty.

    >>> list(IndexBlocks(range(1, 8, 2), 3))
    [tensor([1, 3, 5]), tensor([7])]
    >>> list(IndexBlocks(range(2), 2, least=2))
    [tensor([0, 1]), tensor([], dtype=torch.int64)]
    """

    def __init__(self, indices: range, size: int, least: int = 1) -> None:
        self.indices, self.size, self.least = indices, size, least

    def __len__(self) -> int:
        return max(self.least, math.ceil(len(self.indices) / self.size))

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> list[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | list[Tensor]:
        if isinstance(place, slice):
            return [self[k] for k in range(len(self))[place]]
        start = range(len(self))[place] * self.size
        part = self.indices[start : start + self.size]
        return torch.arange(part.start, part.stop, part.step)


# no tuple: of one, Lightning makes a plain pair when it moves or casts it, without the weights
@dataclass
class WeighedPair:
    """A batch that unpacks as (x, y) like any other, and carries the weights [m] of its samples."""

    x: Tensor
    y: Tensor
    weight: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.y))

    def __getitem__(self, index: int) -> Tensor:
        return (self.x, self.y)[index]

    def __len__(self) -> int:
        return 2


class SplitDataset(Dataset):
    """A split as a map-style dataset: pairs (x, y), floating numbers in torch's default type.

    A batch is fetched at once, ([m, *input_shape], [m, …]), standardized as a run of ours would
    have it; a `WeighedPair` where its samples count unlike.

    Args:
        split: in memory, or read as it is needed.
    """

    def __init__(self, split: Split) -> None:
        self.split, self.weights = split, None
        if isinstance(split, WeightedSplit):
            self.split, self.weights = split.split, split.weights

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor] | WeighedPair:
        split = self.split
        if isinstance(split, TensorSplit | TokenSplit):
            batch = split.batch(torch.tensor(index))
            x, y = batch.x, batch.y
        elif isinstance(split, LoaderSplit):
            # not through its own loader, whose workers cannot be started by those of another
            x, y = split.fetch_samples(index)
        dtype = torch.get_default_dtype()
        x, y = cast(x, x.device, dtype), cast(y, y.device, dtype)
        if self.weights is None:
            return x, y
        at = torch.tensor(index, device=self.weights.device)
        return WeighedPair(x, y, self.weights[at].to(y.device, dtype))


class EpochSampler(Sampler[int]):
    """The samples in the order that a run of ours takes them, another one each epoch.

    Lightning tells it the epoch; iterated by hand it goes on to the next by itself.

    Args:
        plan: of the training batches.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self.plan, self.epoch = plan, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = self.plan.order(self.epoch)
        self.epoch += 1  # for a loop that tells nobody of its epochs
        # a part at a time, as a list takes many times the memory
        return chain.from_iterable(part.tolist() for part in order.split(STEPS_AT_ONCE))

    def __len__(self) -> int:
        return self.plan.n


def build_loader(split: Split, batch_size: int, plan: BatchPlan | None = None) -> DataLoader:
    """Build a dataloader of pairs (x [m, *input_shape], y [m, …]).

    Args:
        split: whose samples.
        batch_size: samples a batch; the last one of an epoch may have fewer.
        plan: whose order the samples take each epoch; None for their own order.
    """
    dataset, workers = SplitDataset(split), 0
    sampler: Sampler[int] = SequentialSampler(dataset)
    if plan is not None:
        sampler = EpochSampler(plan)
    if isinstance(dataset.split, LoaderSplit):
        workers = dataset.split.workers
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=keep_batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        # a loader without its own generator draws from the global one
        generator=torch.Generator().manual_seed(0),
    )
