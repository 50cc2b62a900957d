"""Which samples every optimizer step takes, on every process, recomputable at any position."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator


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
    samples than there are processes, those left out get its first sample with share 0.

    Args:
        n: training samples.
        batch_size: samples a micro-batch, over all processes, or ``full``.
        accumulate: micro-batches a step.
        seed: of the order.
        rank: this process's number.
        world: processes there are.

    Raises:
        ConfigError: ``batch_size`` or ``accumulate`` is not a positive whole number (or ``full``).

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
    ) -> None:
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
            raise ConfigError(f"step.accumulate is {accumulate!r}: give a whole number ≥ 1")
        if n < 1:
            raise ConfigError("the training split is empty: lower data.val and data.test")
        self.n, self.seed, self.rank, self.world = n, seed, rank, world
        self.full = check_batch_size(batch_size) == "full"
        self.micro = math.ceil(n / accumulate) if self.full else min(int(batch_size), n)
        self.step_size = n if self.full else min(self.micro * accumulate, n)

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in one pass through the data."""
        return math.ceil(self.n / self.step_size)

    def order(self, epoch: int) -> Tensor:
        """Return the order [n] in which the epoch takes the samples."""
        # not permuted: the sum over all samples would differ in its last bits each epoch
        if self.full:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=named_generator(self.seed, "order", epoch))

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[Tensor, float]]]:
        """Yield the micro-batches (indices, share) of this process, one list a step.

        Args:
            epoch: counted from 0.
            start_step: steps of it that are over.
        """
        # a run that goes on within an epoch takes what is left of the same order
        rest = self.order(epoch)[start_step * self.step_size :]
        if not len(rest):
            return  # splitting nothing gives one empty step
        for step in rest.split(self.step_size):
            micros: tuple[Tensor, ...] = (step,)
            if len(step) > self.micro:
                micros = step.split(self.micro)
            yield [self._take_share(micro, len(step)) for micro in micros]

    def _take_share(self, micro: Tensor, n_step: int) -> tuple[Tensor, float]:
        if self.world == 1:
            return micro, len(micro) / n_step
        local = micro[self.rank :: self.world]
        # every process must take part in the step, or the others wait for it forever
        if not len(local):
            return micro[:1], 0.0
        return local, len(local) * self.world / n_step
