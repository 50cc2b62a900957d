"""Cut the samples into train, validation and test, with every class in its proportion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.core.rng import draw_permutation


class Rows(NamedTuple):
    """The row numbers of each split, ascending; ``test`` may be left out."""

    train: Tensor
    val: Tensor
    test: Tensor | None


def count_samples(key: str, value: float, n: int) -> int:
    """Return the number of samples that a fraction of n, or a count, stands for.

    Args:
        key: of the split, as messages name it.
        value: a fraction or a count.
        n: the samples there are.

    Raises:
        ConfigError: it is neither, or it makes an empty split.

    >>> count_samples("val", 0.2, 50), count_samples("val", 7, 50)
    (10, 7)
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fraction = isinstance(value, float) and 0 < value < 1
    if not number or not (fraction or (isinstance(value, int) and value >= 0)):
        raise ConfigError(
            f"data.{key} is {value!r}: give a fraction between 0 and 1, or a number of samples"
        )
    count = round(value * n) if fraction else int(value)
    if count == 0:
        without = " (or null to do without)" if key == "test" else ""
        raise ConfigError(f"data.{key}={value} of {n} samples is an empty split: raise it{without}")
    return count


def partition_rows(
    y: Tensor,
    val: float,
    test: float | None,
    generator: torch.Generator,
    class_names: Sequence[str] | None = None,
) -> Rows:
    """Draw disjoint splits of the rows of y that cover them all.

    ``y`` holds classes [n], or zeros where splits are plain draws, and each split has of each class
    its proportional number, rounded up or down.

    Args:
        y: labels int64 [n].
        val: share or number of validation samples.
        test: share or number of test samples; None for none.
        generator: of the draws.
        class_names: for messages.

    Raises:
        ConfigError: a split would be empty, or a class has fewer samples than there are splits.
    """
    n = len(y)
    sizes = [count_samples("val", val, n)]
    if test is not None:
        sizes.insert(0, count_samples("test", test, n))
    if sum(sizes) >= n:
        raise ConfigError(
            f"data.val and data.test take {sum(sizes)} of {n} samples, so none is left to train "
            "on: lower them, or give more data"
        )
    if y.any():
        part = _assign_splits(y, sizes, generator, class_names)
        _check_trained(y, part == len(sizes), class_names)
    else:  # the same of one class, of which there may be millions
        part = torch.full((n,), len(sizes), dtype=torch.uint8)
        for k, drawn in enumerate(draw_permutation(n, generator)[: sum(sizes)].split(sizes)):
            part[drawn.long()] = k
    rows = [torch.nonzero(part == k).flatten() for k in range(len(sizes) + 1)]
    test_rows = None
    if test is not None:
        test_rows = rows[0]
    return Rows(rows[-1], rows[-2], test_rows)


def _assign_splits(
    y: Tensor, sizes: list[int], generator: torch.Generator, class_names: Sequence[str] | None
) -> Tensor:
    """Return the number of the split of every row; the last one takes what is left."""
    counts = torch.bincount(y)
    _check_classes(counts, len(sizes) + 1, class_names)
    rank, part = _rank_in_class(y, generator), torch.full_like(y, len(sizes))
    taken, n = torch.zeros_like(counts), len(y)
    for k, m in enumerate(sizes):
        rest = n - sum(sizes) if k + 1 == len(sizes) else None
        quota = _allot_quota(counts, m, counts - taken, rest)
        inside = (rank >= taken[y]) & (rank < (taken + quota)[y])
        part[inside] = k
        taken = taken + quota
    return part


def _allot_quota(counts: Tensor, m: int, free: Tensor, rest: int | None) -> Tensor:
    """Count how many of each class a split of m takes: counts · m / n, rounded up or down.

    The largest remainders are rounded up. Where ``rest`` samples remain for the last split, what
    remains of each class is its proportion rounded up or down too, as far as that can be had.
    """
    n = int(counts.sum())
    exact = counts * m
    # in whole numbers: a share of n in floats may fall just short of one
    low, high = exact // n, torch.minimum(-(-exact // n), free)
    if rest is not None:
        tight = torch.maximum(low, free + -(counts * rest) // n)
        loose = torch.minimum(high, free - counts * rest // n)
        if int(tight.sum()) <= m <= int(loose.sum()):
            low, high = tight, loose
    # stable, so that equal remainders are rounded alike on every machine
    order = torch.argsort(torch.where(low < high, low * n - exact, n), stable=True)
    quota = low.clone()
    quota[order[: m - int(low.sum())]] += 1
    return quota


def _rank_in_class(y: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the random rank of every row among the rows of its class."""
    # a stable sort by class of a shuffled set leaves each class shuffled
    shuffled = torch.randperm(len(y), generator=generator)
    order = shuffled[torch.argsort(y[shuffled], stable=True)]
    counts = torch.bincount(y)
    start = (counts.cumsum(0) - counts)[y[order]]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(y)) - start
    return rank


def _check_classes(counts: Tensor, splits: int, class_names: Sequence[str] | None) -> None:
    few = torch.nonzero((counts > 0) & (counts < splits)).flatten().tolist()
    if few:
        raise ConfigError(
            f"{_name_class(few[0], class_names)} has {int(counts[few[0]])} of the {splits} samples "
            f"that a stratified split into {splits} parts needs: add samples, merge or drop the "
            "class, or set data.stratify=false"
        )


def _check_trained(y: Tensor, train: Tensor, class_names: Sequence[str] | None) -> None:
    counts = torch.bincount(y)
    lost = torch.nonzero((counts > 0) & (torch.bincount(y[train], minlength=len(counts)) == 0))
    if len(lost):
        raise ConfigError(
            f"{_name_class(int(lost[0]), class_names)} would have no training sample: lower "
            "data.val and data.test, merge or drop the class, or set data.stratify=false"
        )


def _name_class(k: int, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return f"class '{k}'"
    return f"class '{class_names[k]}'"


def choose_subset(y: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """Choose rows of m random samples, ascending, with every class in its proportion.

    With the same generator state a smaller m takes a subset of what a larger one takes, so that
    learning curves grow one training set: classes take turns as seats are given by the method of
    Sainte-Laguë (Webster).

    Args:
        y: labels int64 [n], or zeros.
        m: how many.
        generator: of the draws.

    Raises:
        ConfigError: m is below 1 or more than there are.
    """
    if isinstance(m, bool) or not isinstance(m, int) or not 1 <= m <= len(y):
        raise ConfigError(
            f"data.num_train is {m!r}: the training split has {len(y)} samples, so give a whole "
            "number from 1 to that, or null for all"
        )
    turn = (_rank_in_class(y, generator) + 0.5) / torch.bincount(y)[y]
    # seats of Sainte-Lague: the k-th sample of a class of n takes its turn at (k + 1/2)/n
    ties = torch.randperm(len(y), generator=generator)
    return ties[torch.argsort(turn[ties], stable=True)][:m].sort().values
