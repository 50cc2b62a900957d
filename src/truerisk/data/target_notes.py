"""What is told of targets before training: labels alike, constants, numbers beyond a precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.data.encoder import LARGEST

LOST = 0.01
"""Share of a target's deviation that rounding may take."""
TOLD = 0.001
"""Share of a target's deviation from which on the spacing of its numbers is told."""
RARE = 3
"""How many times the samples of the rarest class the most frequent one has where that is told."""


def name_targets(keywords: Mapping[str, Any], count: int) -> list[str]:
    """Return the names of target columns, as messages have them.

    Args:
        keywords: of the source.
        count: how many there are.

    >>> name_targets({"target": ["height", "weight"]}, 2), name_targets({}, 1)
    (["'height'", "'weight'"], ['y'])
    """
    given = keywords.get("target", keywords.get("y")) or ()
    if isinstance(given, str):
        given = [given]
    if len(given) == count:
        return [f"'{name}'" for name in given]
    if count == 1:
        return ["y"]
    return [f"y[{k}]" for k in range(count)]


def check_range(y: Tensor, names: Sequence[str], rows: Sequence[int], single: bool) -> None:
    """Refuse quantities that cannot be computed with.

    Args:
        y: of a split, [n, columns].
        names: of the columns.
        rows: of the samples in the source, from 0.
        single: whether they are held in single precision.

    Raises:
        ConfigError: one is too large.
    """
    bound = LARGEST
    if single:
        bound = torch.finfo(torch.float32).max
    for k, name in enumerate(names):
        large = torch.nonzero(y[:, k].abs() > bound).flatten().tolist()
        if large:
            raise ConfigError(
                f"data.source: target {name} holds {float(y[large[0], k]):g} in row "
                f"{int(rows[large[0]]) + 1}, which is too large to compute with: correct it, or "
                "divide the column"
            )


def describe_quantities(y: Tensor, names: Sequence[str], single: bool) -> list[str]:
    """Tell of targets that are constant, or whose digits single precision does not hold.

    Numbers of single precision near m are 2^⌊log₂ |m|⌋ − 23 apart.

    Args:
        y: training targets before they are rounded, [n, columns].
        names: of the columns.
        single: whether they are held in single precision.

    Raises:
        ConfigError: rounding takes more than ``LOST`` of a column's deviation.
    """
    notes, wide = [], y.double()
    lost = (wide - wide.float().double()).square().mean(0).sqrt()
    for k, name in enumerate(names):
        mean, spread = float(wide[:, k].mean()), float(wide[:, k].std(correction=0))
        if bool((y[:, k] == y[0, k]).all()):
            notes.append(
                f"target {name} is {float(y[0, k]):g} in every sample of the training split: there "
                "is nothing to learn"
            )
            continue
        near = torch.tensor(abs(mean), dtype=torch.float32)
        spacing = float(torch.nextafter(near, near.new_tensor(torch.inf)) - near)
        if not single or spacing < TOLD * spread:
            continue
        text = (
            f"target {name} has a mean of {mean:.3g} and a deviation of {spread:.2g}, and single "
            f"precision has numbers only every {spacing:.2g} there: subtract a constant from the "
            "column, or set trainer.precision=64-true"
        )
        if lost[k] > LOST * spread:
            raise ConfigError(f"data.source: {text}")
        notes.append(text)
    return notes


def describe_alike(names: Sequence[str] | None) -> list[str]:
    """Tell of classes whose names differ in blanks or case alone: a line, or none.

    Args:
        names: of the classes.

    >>> describe_alike(["no", "yes", "yes "])
    ["classes 'yes' and 'yes ' differ in blanks or case alone: write them alike if they are one"]
    """
    kinds: dict[str, list[str]] = {}
    for name in names or ():
        kinds.setdefault(" ".join(name.split()).casefold(), []).append(name)
    twins = [alike for alike in kinds.values() if len(alike) > 1]
    if not twins:
        return []
    listed = ", ".join(" and ".join(map(repr, alike)) for alike in twins[:3])
    return [f"classes {listed} differ in blanks or case alone: write them alike if they are one"]


def describe_imbalance(counts: Sequence[int], names: Sequence[str] | None) -> list[str]:
    """Tell of classes that are rare beside others: a line, or none.

    Args:
        counts: training samples of each class.
        names: of the classes.

    >>> describe_imbalance([90, 10], ["no", "yes"])[0].partition(";")[0]
    'classes of the training split: no 90 (90 %), yes 10 (10 %)'
    """
    if max(counts) < RARE * min(counts):
        return []
    total = sum(counts)
    order = sorted(range(len(counts)), key=lambda k: -counts[k])
    told = [
        f"{names[k] if names else k} {counts[k]} ({100 * counts[k] / total:.2g} %)" for k in order
    ]
    if len(told) > 6:
        told = [*told[:3], "…", *told[-2:]]
    return [
        f"classes of the training split: {', '.join(told)}; loss.weight=balanced or "
        "data.sampler=balanced let each count alike"
    ]
