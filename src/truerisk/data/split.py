"""One part of the data, in memory or read as it is needed, asked for by indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from truerisk.core.batch import Batch
from truerisk.data.samples import Inputs
from truerisk.data.standardizer import Standardizer


class Split(Protocol):
    """Samples that give their batches for a list of index tensors."""

    y: Tensor

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """One batch for every int64 index tensor of the plan, in its order."""
        ...

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Split:
        """The same split, whose batches lie on ``device`` with floating numbers in ``dtype``."""
        ...

    def placed(self, x: Tensor, y: Tensor) -> Batch:
        """Other samples, with the device and type of the split's."""
        ...


def cast(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Move a tensor, and change its type unless it holds whole numbers."""
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(device, kind, non_blocking=True)


class TensorSplit:
    """A split held in memory: inputs ``x`` [n, *shape] and targets ``y``; batches by indexing.

    >>> split = TensorSplit(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 0]))
    >>> split.batch(torch.tensor([2, 1])).x
    tensor([[4., 5.],
            [2., 3.]])
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TensorSplit:
        """The same samples on ``device``, floating numbers in ``dtype``."""
        return TensorSplit(cast(self.x, device, dtype), cast(self.y, device, dtype))

    def placed(self, x: Tensor, y: Tensor) -> Batch:
        """Other samples, with the device and type of these."""
        device, dtype = self.x.device, self.x.dtype
        return Batch(cast(x, device, dtype), cast(y, device, dtype))

    def batch(self, index: Tensor) -> Batch:
        """The samples at ``index``; without a copy if they lie in a row."""
        row = in_a_row(index)
        if row is not None:
            return Batch(self.x[row], self.y[row])
        index = index.to(self.x.device, non_blocking=True)
        return Batch(self.x.index_select(0, index), self.y.index_select(0, index))

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """One batch for every index tensor of the plan."""
        return map(self.batch, plan)


def in_a_row(index: Tensor) -> slice | None:
    """The indices as a slice, if they count up one by one; most do not, as their ends tell.

    >>> in_a_row(torch.tensor([3, 4, 5])), in_a_row(torch.tensor([3, 5, 4, 6]))
    (slice(3, 6, None), None)
    """
    if not len(index):
        return None
    first, last = int(index[0]), int(index[-1])
    row = last - first == len(index) - 1 and bool((index.diff() == 1).all())
    return slice(first, last + 1) if row else None


class _Rows(Dataset):
    """Pairs (x, y) fetched a whole batch at a time."""

    def __init__(self, x: Tensor | Inputs, y: Tensor) -> None:
        self.x, self.y = x, y

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        if isinstance(self.x, Tensor):
            return self.x[index], self.y[index]
        return torch.stack([self.x[i] for i in index]), self.y[index]


class _Plan:
    """A batch sampler whose plan changes between epochs while the workers stay."""

    def __init__(self) -> None:
        self.plan: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (index.tolist() for index in self.plan)

    def __len__(self) -> int:
        return len(self.plan)


def _same(batch: Any) -> Any:
    """Leave a batch as it was fetched."""
    return batch


class LoaderSplit:
    """A split read batch by batch through a ``DataLoader`` whose workers stay between epochs.

    Targets ``y`` are held in memory; inputs are standardized on the device they go to. Take one
    iterator at a time: a new one ends the last.
    """

    def __init__(
        self,
        x: Tensor | Inputs,
        y: Tensor,
        standardizer: Standardizer,
        workers: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.x, self.y, self.standardizer, self.workers = x, y, standardizer, workers
        self.device, self.dtype = torch.device(device), dtype
        self._plan = _Plan()
        self._loader: DataLoader | None = None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> LoaderSplit:
        """The same samples, whose batches go to ``device`` in ``dtype``."""
        if (torch.device(device), dtype) == (self.device, self.dtype):
            return self
        return LoaderSplit(self.x, self.y, self.standardizer, self.workers, device, dtype)

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """One batch for every index tensor of the plan."""
        self._plan.plan = plan
        for x, y in self._reader():
            batch = self.placed(x, y)
            yield Batch(self.standardizer(batch.x), batch.y)

    def placed(self, x: Tensor, y: Tensor) -> Batch:
        """Other samples, with the device and type of these."""
        dtype = self.dtype or x.dtype
        return Batch(cast(x, self.device, dtype), cast(y, self.device, dtype))

    def _reader(self) -> DataLoader:
        if self._loader is None:
            self._loader = DataLoader(
                _Rows(self.x, self.y),
                batch_sampler=self._plan,
                collate_fn=_same,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=self.device.type == "cuda",
                # A loader without its own generator draws from the global one.
                generator=torch.Generator().manual_seed(0),
            )
        return self._loader
