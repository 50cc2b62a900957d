"""One part of the data, in memory or read as it is needed, asked for by indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from truerisk.core.batch import Batch
from truerisk.core.errors import FAULTS, ConfigError, UserError, describe_fault
from truerisk.data.encoder import Standardizer
from truerisk.data.samples import Inputs

BLOCK = 1024
"""Samples standardized at a time, so that no second copy of a data set is ever held."""
READ_AT_ONCE = 2**18
"""Bytes of inputs that several batches may be read in together; a core's cache holds as many."""
CACHE_LINE = 64
"""Bytes."""
AHEAD = 64
"""Batches whose rows and targets are looked up together."""


class Split(Protocol):
    """Samples that give their batches for a list of index tensors."""

    y: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for every int64 index tensor of the plan, in its order."""
        ...

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Split:
        """Return the same split, with batches on ``device`` and floating numbers in ``dtype``."""
        ...

    def place_samples(self, x: Tensor, y: Tensor) -> Batch:
        """Give other samples the device and type of the split's."""
        ...


def cast(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Move a tensor, and change its type unless it holds whole numbers.

    Args:
        tensor: of any shape.
        device: where it goes.
        dtype: of floating-point numbers there.
    """
    if not tensor.is_floating_point():
        dtype = tensor.dtype
    # the copy of pinned memory overlaps with computing; of other memory it just waits
    return tensor.to(device, dtype, non_blocking=True)


class TensorSplit:
    """A split of inputs held in memory: some rows of a source's tensor, standardized.

    Batches are gathered from the source's own tensor and standardized one at a time, until ``x`` is
    asked for or `to` makes a copy: a data set as large as memory is then held once.

    Args:
        x: inputs [N, *shape] of the source, shared with the other splits.
        y: targets [n, …] of the split.
        rows: the split's rows of ``x``, int64 [n]; None for all of them.
        standardizer: of the inputs; None leaves them as they are.
        keep_source: whether `to` leaves inputs in the source's tensor where device and type are
            those asked for already.

    >>> split = TensorSplit(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 0]))
    >>> split.batch(torch.tensor([2, 1])).x
    tensor([[4., 5.],
            [2., 3.]])
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        rows: Tensor | None = None,
        standardizer: Standardizer | None = None,
        keep_source: bool = False,
    ) -> None:
        self.y, self.keep_source = y, keep_source
        self._source, self._rows = x, rows
        self._standardizer = None if standardizer is None else standardizer.match_type(x)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def x(self) -> Tensor:
        """All inputs [n, *shape], standardized; made when first asked for, and kept."""
        if not self._is_plain:
            self._source = self._copy_inputs(self._source.device, None)
            self._rows = self._standardizer = None
        return self._source

    @property
    def place(self) -> tuple[Tensor, Tensor | None, Standardizer | None]:
        """Where inputs lie: a tensor, the split's rows of it, and what standardizes those."""
        return self._source, self._rows, self._standardizer

    @property
    def _is_plain(self) -> bool:
        """Whether the inputs are those of the tensor, as they lie there."""
        return self._rows is None and self._standardizer is None

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TensorSplit:
        """Return the same samples on ``device``, floating numbers in ``dtype``.

        Args:
            device: where batches are to lie.
            dtype: of floating-point numbers there.
        """
        y, x = cast(self.y, device, dtype), self._source
        # indexed devices compare unequal to bare ones, which costs a copy at most
        stays = x.device == torch.device(device) and x.dtype == dtype
        if stays and (self._is_plain or self.keep_source):
            if y is self.y:
                return self  # which other runs may share
            return TensorSplit(x, y, self._rows, self._standardizer, self.keep_source)
        if self._is_plain:
            return TensorSplit(cast(x, device, dtype), y)
        return TensorSplit(self._copy_inputs(device, dtype), y)

    def _copy_inputs(self, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
        """Read all inputs block by block into a tensor of their own, [n, *shape]."""
        first = self.batch(torch.arange(min(1, len(self)))).x
        dtype = dtype if dtype is not None and first.is_floating_point() else first.dtype
        copy = torch.empty((len(self), *first.shape[1:]), device=device, dtype=dtype)
        blocks = torch.arange(len(self)).split(BLOCK)
        for index, batch in zip(blocks, self._read_batches(blocks), strict=True):
            copy[index[0] : index[-1] + 1] = batch.x
        return copy

    def place_samples(self, x: Tensor, y: Tensor) -> Batch:
        """Give other samples the device and type of these.

        Args:
            x: inputs, standardized.
            y: their targets.
        """
        device, dtype = self._source.device, self._source.dtype
        return Batch(cast(x, device, dtype), cast(y, device, dtype))

    def batch(self, index: Tensor) -> Batch:
        """Return the samples at ``index``, int64 [m]; without a copy if they lie in a row."""
        if not self._is_plain:
            return next(self._read_batches([index]))
        stretch = as_slice(index)
        if stretch is not None:
            return Batch(self._source[stretch], self.y[stretch])
        index = index.to(self._source.device, non_blocking=True)
        # several times as fast as x[index]
        return Batch(self._source.index_select(0, index), self.y.index_select(0, index))

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for every index tensor of the plan."""
        if not self._is_plain:
            yield from self._read_batches(plan)
            return
        for block in self._join_batches(plan):
            whole, sizes = self.batch(torch.cat(list(block))), [len(index) for index in block]
            yield from map(Batch, whole.x.split(sizes), whole.y.split(sizes))

    def _read_batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield batches out of the source's tensor, standardized."""
        for start in range(0, len(plan), AHEAD):
            # a step drives rows and targets out of the cache: looked up for one batch, they take
            # as long as a half of its inputs
            index = torch.cat(list(plan[start : start + AHEAD]))
            sizes = [len(one) for one in plan[start : start + AHEAD]]
            rows = index if self._rows is None else self._rows.index_select(0, index)
            targets = iter(self.y.index_select(0, index).split(sizes))
            for block in self._join_batches(rows.split(sizes)):
                parts = self._read_block(block)
                while parts:
                    # not kept here: the next is read into its memory, which is in the cache
                    yield Batch(parts.pop(0), next(targets))

    def _read_block(self, block: Sequence[Tensor]) -> list[Tensor]:
        """Read the inputs of several batches at once, [m, *shape] each, standardized."""
        # one alone is neither joined nor cut, which takes as long as a tenth of its reading
        rows = block[0] if len(block) == 1 else torch.cat(list(block))
        x = self._source.index_select(0, rows)
        if self._standardizer is not None:
            x = self._standardizer(x, in_place=True)
        return [x] if len(block) == 1 else list(x.split([len(one) for one in block]))

    def _join_batches(self, plan: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
        """Cut a plan into stretches that are read at once: reading has a price of its own."""
        count = 1
        if len({index.numel() for index in plan[:-1]}) == 1:
            size = plan[0].numel() * self._source[:1].numel() * self._source.element_size()
            # Products come to other last digits where inputs begin elsewhere in a cache line.
            if size and size % CACHE_LINE == 0:
                count = max(1, READ_AT_ONCE // size)
        for start in range(0, len(plan), count):
            yield plan[start : start + count]


def as_slice(index: Tensor) -> slice | None:
    """Return indices as a slice if they count up one by one; most do not, as their ends tell.

    >>> as_slice(torch.tensor([3, 4, 5])), as_slice(torch.tensor([3, 5, 4, 6]))
    (slice(3, 6, None), None)
    """
    numbers = index.numpy()  # a tenth of the time that reading two entries of a tensor takes
    if not numbers.size or numbers[-1] - numbers[0] != numbers.size - 1:
        return None
    if not (numbers[1:] - numbers[:-1] == 1).all():
        return None
    return slice(int(numbers[0]), int(numbers[-1]) + 1)


class WeightedSplit:
    """A split whose batches carry the weights of their samples.

    Args:
        split: the samples.
        weights: how much each counts, [n].
    """

    def __init__(self, split: Split, weights: Tensor) -> None:
        self.split, self.weights, self.y = split, weights, split.y

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for every index tensor of the plan."""
        for index, batch in zip(plan, self.split.batches(plan), strict=True):
            kind = batch.x.dtype if batch.x.is_floating_point() else torch.get_default_dtype()
            own = self.weights[index.to(self.weights.device)].to(batch.y.device, kind)
            yield replace(batch, weight=own)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> WeightedSplit:
        """Return the same samples on ``device``, floating numbers in ``dtype``.

        Args:
            device: where batches are to lie.
            dtype: of floating-point numbers there.
        """
        return WeightedSplit(self.split.to(device, dtype), self.weights)

    def place_samples(self, x: Tensor, y: Tensor) -> Batch:
        """Give other samples the device and type of these.

        Args:
            x: inputs, standardized.
            y: their targets.
        """
        return self.split.place_samples(x, y)

    def __getattr__(self, name: str) -> Any:
        if name == "split":  # before it is there, as while a copy is made
            raise AttributeError(name)
        return getattr(self.split, name)


# --- inputs that are read one at a time ---------------------------------------------------------


class InputRows:
    """Some rows of inputs that are read one at a time.

    Args:
        inputs: all of them.
        rows: numbers among them, int64 [n].
    """

    def __init__(self, inputs: Inputs, rows: Tensor) -> None:
        self.inputs, self.rows, self.shape = inputs, rows.tolist(), inputs.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return read_sample(self.inputs, self.rows[index])


def read_sample(inputs: Inputs, index: int) -> Tensor:
    """Read one sample, whose class may be anybody's.

    Args:
        inputs: read one at a time.
        index: of the sample.

    Raises:
        ConfigError: it cannot be read, or is of another shape than the others.
    """
    try:
        x = inputs[index]
    except UserError:
        raise
    except FAULTS as error:
        raise ConfigError(
            f"data.source: sample {index} cannot be read: {describe_fault(error)}"
        ) from error
    shape = list(getattr(x, "shape", ()))
    if not isinstance(x, Tensor) or shape != list(inputs.shape):
        raise ConfigError(
            f"data.source: sample {index} is a {type(x).__name__} of shape {shape}, and a tensor "
            f"{list(inputs.shape)} is needed, as its source's .shape says"
        )
    return x


def sample_shape(x: Tensor | Inputs) -> tuple[int, ...]:
    """Return the shape of one sample."""
    if isinstance(x, Tensor):
        return tuple(x.shape[1:])
    return x.shape


def stack_inputs(x: Tensor | Inputs) -> Tensor:
    """Return all inputs in one tensor [n, *shape]."""
    if isinstance(x, Tensor):
        return x
    # filled one by one: `torch.stack` of a list would hold every sample twice
    stacked = torch.empty(len(x), *x.shape)
    for i in range(len(x)):
        stacked[i] = read_sample(x, i)
    return stacked


class _PairDataset(Dataset):
    """Pairs (x, y) fetched a whole batch at a time."""

    def __init__(self, x: Tensor | Inputs, y: Tensor) -> None:
        self.x, self.y = x, y

    # torch's loader asks for a whole batch by this name where a dataset has it
    def __getitems__(self, index: list[int]) -> tuple[Any, Tensor]:
        if isinstance(self.x, Tensor):
            return self.x[index], self.y[index]
        try:
            return torch.stack([read_sample(self.x, i) for i in index]), self.y[index]
        except UserError as error:  # raised in a worker, it would come back as a traceback in words
            return error, self.y[index]


class _PlanSampler:
    """A batch sampler whose plan changes between epochs while the workers stay."""

    def __init__(self) -> None:
        self.plan: Sequence[Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (index.tolist() for index in self.plan)

    def __len__(self) -> int:
        return len(self.plan)


def keep_batch(batch: Any) -> Any:
    """Return a batch as it was fetched: what a ``DataLoader`` is to do about collating."""
    return batch


class LoaderSplit:
    """A split read batch by batch through a ``DataLoader`` whose workers stay between epochs.

    Targets are held in memory; inputs are standardized on the device they go to. Take one iterator
    at a time: a new one ends the last.

    Args:
        x: inputs [n, *shape], read as they are needed.
        y: targets [n, …].
        standardizer: of the inputs.
        workers: processes that read.
        device: where batches go.
        dtype: of floating-point numbers there; None for that of the inputs.
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
        self._sampler = _PlanSampler()
        self._loader: DataLoader | None = None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> LoaderSplit:
        """Return the same samples, whose batches go to ``device`` in ``dtype``.

        Args:
            device: where batches are to lie.
            dtype: of floating-point numbers there.
        """
        if (torch.device(device), dtype) == (self.device, self.dtype):
            return self
        return LoaderSplit(self.x, self.y, self.standardizer, self.workers, device, dtype)

    def batches(self, plan: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch for every index tensor of the plan."""
        self._sampler.plan = plan
        for x, y in self._open_loader():
            if isinstance(x, UserError):
                raise x
            batch = self.place_samples(x, y)
            yield Batch(self.standardizer(batch.x), batch.y)

    def place_samples(self, x: Tensor, y: Tensor) -> Batch:
        """Give other samples the device and type of these.

        Args:
            x: inputs.
            y: their targets.
        """
        dtype = self.dtype or x.dtype
        return Batch(cast(x, self.device, dtype), cast(y, self.device, dtype))

    def fetch_samples(self, index: list[int]) -> tuple[Tensor, Tensor]:
        """Read samples in this process: standardized inputs [m, *shape] and targets [m, …]."""
        x, y = _PairDataset(self.x, self.y).__getitems__(index)
        if isinstance(x, UserError):
            raise x
        return self.standardizer(x), y

    def _open_loader(self) -> DataLoader:
        if self._loader is None:
            self._loader = DataLoader(
                _PairDataset(self.x, self.y),
                batch_sampler=self._sampler,
                collate_fn=keep_batch,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=self.device.type == "cuda",
                # a loader without its own generator draws from the global one
                generator=torch.Generator().manual_seed(0),
            )
        return self._loader
