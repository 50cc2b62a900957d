"""Splits as dataloaders, for any LightningModule or loop that takes batches of pairs (x, y)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from truerisk.data.plan import BatchPlan
from truerisk.data.split import LoaderSplit, Split, TensorSplit, cast, keep_batch


class SplitDataset(Dataset):
    """A split as a map-style dataset: pairs (x, y), floating numbers in torch's default type.

    A batch is fetched at once, ([m, *input_shape], [m, …]), standardized as a run of ours would
    have it.

    Args:
        split: in memory, or read as it is needed.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        split = self.split
        if isinstance(split, TensorSplit):
            batch = split.batch(torch.tensor(index))
            x, y = batch.x, batch.y
        elif isinstance(split, LoaderSplit):
            # not through its own loader, whose workers cannot be started by those of another
            x, y = split.fetch_samples(index)
        dtype = torch.get_default_dtype()
        return cast(x, x.device, dtype), cast(y, y.device, dtype)


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
        return iter(order.tolist())

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
    if isinstance(split, LoaderSplit):
        workers = split.workers
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
