"""Weights of classes, as a configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from truerisk.core.errors import ConfigError, suggest
from truerisk.task import get_task


class ClassInfo(Protocol):
    """What is known of the classes of some data."""

    @property
    def task(self) -> str:
        """The name of the task."""

    @property
    def num_outputs(self) -> int:
        """The number of classes or labels."""

    @property
    def class_names(self) -> Sequence[str] | None:
        """Their names, where they have any."""

    @property
    def class_counts(self) -> Sequence[int] | None:
        """The training samples of each class."""


def read_class_weights(weight: Any, info: ClassInfo) -> list[float] | None:
    """Return a factor for the losses of each class.

    ``balanced`` gives a class of n_k among n training samples n / (K n_k), so that each of K
    classes counts alike and their mean over samples is 1 (King & Zeng 2001, §4.2).

    Args:
        weight: None, ``balanced``, a number a class in the classes' order, or a map from names.
        info: what is known of the classes.

    Raises:
        ConfigError: they are no weights of these classes.

    >>> from types import SimpleNamespace
    >>> info = SimpleNamespace(
    ...     task="classification", num_outputs=2, class_names=["no", "yes"], class_counts=[90, 10]
    ... )
    >>> read_class_weights("balanced", info), read_class_weights({"yes": 3}, info)
    ([0.5555555555555556, 5.0], [1.0, 3.0])
    """
    if weight is None:
        return None
    task, names, count = get_task(info.task), info.class_names, info.num_outputs
    known = list(names) if names else [str(k) for k in range(count)]
    if task.scales_targets:
        raise ConfigError(
            f"loss.weight: {task.phrase} has no classes; data.source.weight weighs samples"
        )
    if isinstance(weight, str):
        if weight != "balanced":
            raise ConfigError(
                f"loss.weight is '{weight}': give balanced, a list of numbers, or a map of names"
            )
        counts = info.class_counts
        if not counts:
            raise ConfigError(
                f"loss.weight=balanced: {task.phrase} has no classes that are counted; give a list"
            )
        total, present = sum(counts), sum(k > 0 for k in counts)
        return [total / (present * k) if k else 1.0 for k in counts]
    if isinstance(weight, Mapping):
        given = {str(name): value for name, value in weight.items()}
        strange = next((name for name in given if name not in known), None)
        if strange is not None:
            raise ConfigError(
                f"loss.weight: there is no class '{strange}'; {suggest(strange, known)}"
            )
        values = [given.get(name, 1.0) for name in known]
    else:
        values = list(weight.tolist() if hasattr(weight, "tolist") else weight)
    if len(values) != count:
        raise ConfigError(
            f"loss.weight has {len(values)} numbers, and there are {count} classes: "
            f"{', '.join(known[:10])}"
        )
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or min(values) < 0 or not 0 < sum(values) < float("inf"):
        raise ConfigError(f"loss.weight is {values}: give numbers of at least 0, not all of them 0")
    return [float(v) for v in values]
