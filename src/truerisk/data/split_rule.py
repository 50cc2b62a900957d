"""How a column says where to cut: groups stay together, the past trains, or it names the split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, format_count, suggest
from truerisk.data.partition import Rows, count_samples

KINDS = ("random", "group", "time", "fixed")
SIDES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The words by which a column may name the split of a row."""
TRIES = 50
"""Draws of groups among which the one that keeps the classes' shares best is taken."""


class SplitRule(NamedTuple):
    """``random``, or a kind and the column that it goes by."""

    kind: str
    column: str = ""


def parse_rule(text: str) -> SplitRule:
    """Read ``data.split``.

    Args:
        text: ``random``, ``group:COLUMN``, ``time:COLUMN`` or ``fixed:COLUMN``.

    Raises:
        ConfigError: it is none of these.

    >>> parse_rule("group:patient")
    SplitRule(kind='group', column='patient')
    """
    kind, _, column = str(text).partition(":")
    if kind not in KINDS or (kind == "random") == bool(column):
        hint = "" if kind in KINDS else f"; {suggest(kind, KINDS)}"
        raise ConfigError(
            f"data.split is '{text}': give random, group:COLUMN (no group on both sides), "
            f"time:COLUMN (the past trains, the future tests) or fixed:COLUMN (it names the split)"
            f"{hint}"
        )
    return SplitRule(kind, column)


def number_groups(values: Any) -> Tensor:
    """Return the number of each value's group, int64 [n], counted from 0.

    Args:
        values: numbers or texts [n].

    >>> number_groups(np.array(["b", "a", "b"]))
    tensor([1, 0, 1])
    """
    texts = np.asarray(values)
    if texts.dtype == object:
        texts = texts.astype(str)
    return torch.as_tensor(np.unique(texts, return_inverse=True)[1].reshape(-1))


def check_column(values: Any, key: str, column: str) -> Any:
    """Refuse a column with gaps.

    Args:
        values: of the column, [n].
        key: that names the column.
        column: its name.

    Raises:
        ConfigError: a value is missing.
    """
    import pandas as pd

    gaps = np.flatnonzero(pd.isna(np.asarray(values)))
    if len(gaps):
        raise ConfigError(
            f"{key}: column '{column}' has no value in {format_count(len(gaps), 'row')}, "
            f"the first of them row {gaps[0] + 1}: fill it, or leave those rows out"
        )
    return values


def read_times(values: Any, column: str) -> np.ndarray:
    """Return moments as numbers that count up, [n].

    Args:
        values: numbers, dates, or texts that pandas reads as dates.
        column: their name.

    Raises:
        ConfigError: they are neither.
    """
    import pandas as pd

    moments = np.asarray(values)
    if moments.dtype.kind in "iuf":
        return moments
    if moments.dtype.kind == "M":
        return moments.astype("int64")
    try:
        with warnings.catch_warnings():
            # pandas warns where it would guess a format row by row
            warnings.simplefilter("error")
            return pd.to_datetime(pd.Series(moments).astype(str)).to_numpy().astype("int64")
    except (ValueError, TypeError, OverflowError, UserWarning):
        raise ConfigError(
            f"data.split=time:{column}: its values, such as '{moments[0]}', are neither numbers "
            "nor dates: write them as 2024-03-01, or as numbers that count up"
        ) from None


def cut_groups(counts: Tensor, sizes: Sequence[int], column: str) -> Tensor:
    """Cut groups that stand in an order into consecutive splits of about the sizes asked for.

    Args:
        counts: samples of each group, int64 [G].
        sizes: samples of each split but the last, which takes what is left.
        column: of the groups, for messages.

    Returns:
        The split of each group, [G]; each has one at least.

    Raises:
        ConfigError: there are fewer groups than splits.

    >>> cut_groups(torch.tensor([3, 3, 3, 3]), [4], "day")
    tensor([0, 1, 1, 1])
    """
    splits = len(sizes) + 1
    if len(counts) < splits:
        raise ConfigError(
            f"data.split: column '{column}' has {len(counts)} different values, and {splits} "
            "splits need one each at least"
        )
    ends = counts.cumsum(0)
    part, start, total = torch.full_like(counts, splits - 1), 0, 0
    for k, size in enumerate(sizes):
        total += size
        stop = int((ends - total).abs().argmin()) + 1
        # a split has a group at least, and leaves one for each that follows
        stop = min(max(stop, start + 1), len(counts) - (splits - 1 - k))
        part[start:stop] = k
        start = stop
    return part


def split_groups(
    groups: Tensor,
    labels: Tensor,
    val: float,
    test: float | None,
    generator: torch.Generator,
    column: str,
) -> Rows:
    """Draw splits that have no group in common, of about the sizes asked for.

    Of several draws the one is taken in which the splits have the classes most nearly in their
    shares.

    Args:
        groups: number of each sample's group, int64 [n].
        labels: classes int64 [n], or zeros.
        val: share or number of validation samples.
        test: share or number of test samples; None for none.
        generator: of the draws.
        column: of the groups, for messages.

    Raises:
        ConfigError: a split would be empty.
    """
    sizes = split_sizes(len(groups), val, test)
    counts = torch.bincount(groups)
    shares = torch.bincount(labels).double() / len(labels)
    best, best_misfit = groups, float("inf")
    for _ in range(TRIES if len(shares) > 1 else 1):
        order = torch.randperm(len(counts), generator=generator)
        part = torch.empty_like(counts)
        part[order] = cut_groups(counts[order], sizes, column)
        own = part[groups]
        misfit = 0.0
        for k in range(len(sizes) + 1):
            inside = torch.bincount(labels[own == k], minlength=len(shares)).double()
            misfit += float((inside / inside.sum() - shares).abs().sum())
        if misfit < best_misfit:
            best, best_misfit = own, misfit
    return make_rows(best, test)


def split_in_time(times: Any, val: float, test: float | None, column: str) -> Rows:
    """Split so that all training samples come before all validation, and those before all test.

    Samples of one moment stay together.

    Args:
        times: numbers that count up, [n].
        val: share or number of validation samples.
        test: share or number of test samples; None for none.
        column: of the times, for messages.

    Raises:
        ConfigError: there are fewer moments than splits.
    """
    moments = number_groups(times)
    # from the end, as the latest are cut off first
    part = cut_groups(
        torch.bincount(moments).flip(0), split_sizes(len(moments), val, test), column
    ).flip(0)
    return make_rows(part[moments], test)


def split_by_name(values: Any, column: str) -> dict[str, Tensor]:
    """Split as a column says.

    Args:
        values: ``train``, ``val`` or ``test`` and the like, [n].
        column: its name.

    Returns:
        The rows of the splits that it names, ascending.

    Raises:
        ConfigError: another word, or no row to train on.
    """
    words = np.char.lower(np.char.strip(np.asarray(values).astype(str)))
    known = {word: side for side, names in SIDES.items() for word in names}
    strange = [word for word in dict.fromkeys(words.tolist()) if word not in known]
    if strange:
        raise ConfigError(
            f"data.split=fixed:{column}: '{strange[0]}' names no split; write train, val or test"
        )
    sides = np.array([known[word] for word in words.tolist()])
    rows = {side: torch.as_tensor(np.flatnonzero(sides == side)) for side in SIDES}
    if not len(rows["train"]):
        raise ConfigError(f"data.split=fixed:{column}: no row is named train")
    return {side: own for side, own in rows.items() if len(own)}


def check_folds(folds: Any, fold: Any) -> None:
    """Refuse numbers of folds that are none.

    Args:
        folds: how many there are; None for no cross-validation.
        fold: which of them is tested, from 0.

    Raises:
        ConfigError: they are no whole numbers in range.
    """
    if folds is not None and (isinstance(folds, bool) or not isinstance(folds, int) or folds < 2):
        raise ConfigError(f"data.folds is {folds!r}: give a whole number from 2, or null for none")
    last = (folds or 1) - 1
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold <= last:
        hint = "set data.folds to how many there are" if folds is None else f"give 0 to {last}"
        raise ConfigError(f"data.fold is {fold!r}: {hint}")


def deal_folds(labels: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """Draw the fold of each sample, int64 [n], each of them as large and with the classes' shares.

    Args:
        labels: classes int64 [n], or zeros.
        folds: how many.
        generator: of the draws.

    Raises:
        ConfigError: a class has fewer samples than there are folds.

    >>> deal_folds(torch.tensor([0, 0, 0, 0, 1, 1]), 2, torch.Generator()).bincount()
    tensor([3, 3])
    """
    counts = torch.bincount(labels)
    few = torch.nonzero((counts > 0) & (counts < folds)).flatten()
    if len(few):
        raise ConfigError(
            f"data.folds={folds}: a class has {int(counts[few[0]])} samples, and stratified folds "
            "need one each: lower it, or set data.stratify=false"
        )
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % folds
    return fold


def deal_groups(
    groups: Tensor, labels: Tensor, folds: int, generator: torch.Generator, column: str
) -> Tensor:
    """Draw the fold of each sample, int64 [n], so that no group is in two of them.

    Groups in random order go to the fold that has the fewest samples yet; of several draws the one
    is taken in which folds have the classes most nearly in their shares.

    Args:
        groups: number of each sample's group, int64 [n].
        labels: classes int64 [n], or zeros.
        folds: how many.
        generator: of the draws.
        column: of the groups, for messages.

    Raises:
        ConfigError: there are fewer groups than folds.
    """
    counts = torch.bincount(groups)
    if len(counts) < folds:
        raise ConfigError(
            f"data.folds={folds}: column '{column}' has {len(counts)} different values, and a fold "
            "needs one at least"
        )
    shares = torch.bincount(labels).double() / len(labels)
    best, best_misfit = groups, float("inf")
    for _ in range(TRIES if len(shares) > 1 else 1):
        part, sizes = torch.empty_like(counts), [0] * folds
        for group in torch.randperm(len(counts), generator=generator).tolist():
            least = sizes.index(min(sizes))
            part[group] = least
            sizes[least] += int(counts[group])
        own, misfit = part[groups], 0.0
        for k in range(folds):
            inside = torch.bincount(labels[own == k], minlength=len(shares)).double()
            misfit += float((inside / inside.sum() - shares).abs().sum())
        if misfit < best_misfit:
            best, best_misfit = own, misfit
    return best


def split_sizes(n: int, val: float, test: float | None) -> list[int]:
    """Count the samples of the test split, where there is one, and of the validation split.

    Args:
        n: the samples there are.
        val: share or number of validation samples.
        test: share or number of test samples; None for none.

    Raises:
        ConfigError: one would be empty, or none would be left to train on.
    """
    sizes = [count_samples("val", val, n)]
    if test is not None:
        sizes.insert(0, count_samples("test", test, n))
    if sum(sizes) >= n:
        raise ConfigError(
            f"data.val and data.test take {sum(sizes)} of {n} samples, so none is left to train "
            "on: lower them, or give more data"
        )
    return sizes


def make_rows(part: Tensor, test: float | None) -> Rows:
    """Return the rows of splits numbered test, validation, train, or validation, train."""
    rows = [torch.nonzero(part == k).flatten() for k in range(int(part.max()) + 1)]
    return Rows(rows[-1], rows[-2], rows[0] if test is not None else None)
