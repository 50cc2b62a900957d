"""Class labels of any kind as numbers 0 … K−1, and the task a target column asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest


def task_of(values: Any, task: str = "auto", max_classes: int | None = None) -> str:
    """The task a NumPy array of targets asks for, unless it is named.

    Texts and truth values are classes; whole numbers too, if ``max_classes`` is None or at least
    the number of different ones; all else is a regression.

    Raises:
        ConfigError: there is no task of that name.

    >>> import numpy as np
    >>> task_of(np.array(["a", "b"])), task_of(np.array([0.5])), task_of(np.arange(30), "auto", 20)
    ('classification', 'regression', 'regression')
    """
    if task not in (known := ("auto", "classification", "regression")):
        raise ConfigError(f"data.source.task is '{task}': {suggest(str(task), known)}")
    if task != "auto":
        return task
    if values.dtype.kind in "iu":
        few = max_classes is None or len(set(values.tolist())) <= max_classes
        return "classification" if few else "regression"
    return "regression" if values.dtype.kind == "f" else "classification"


def name_of(value: Any) -> str:
    """A label as text; 3.0 is written as 3.

    >>> name_of(3.0), name_of(True), name_of("cat")
    ('3', 'True', 'cat')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def class_labels(values: Any, known: Sequence[str] | None = None) -> tuple[Tensor, list[str]]:
    """Labels int64 [n] of a NumPy array, and the class names in the labels' order.

    Raises:
        ConfigError: a label is none of the ``known`` class names.

    >>> import numpy as np
    >>> class_labels(np.array(["b", "a", "b"]))
    (tensor([1, 0, 1]), ['a', 'b'])
    """
    items = values.tolist()
    names = list(known) if known is not None else [name_of(v) for v in sorted(set(items))]
    place = {name: k for k, name in enumerate(names)}
    texts = [name_of(v) for v in items]
    strange = next((t for t in texts if t not in place), None)
    if strange is not None:
        raise ConfigError(
            f"data.source: class '{strange}' is not among the classes trained on; "
            f"{suggest(strange, names)}"
        )
    return torch.tensor([place[t] for t in texts], dtype=torch.long), names


def targets(values: Any) -> Tensor:
    """Regression targets [n, outputs] of a NumPy array [n] or [n, outputs].

    Raises:
        ConfigError: they are not finite numbers.
    """
    try:
        y = torch.as_tensor(values.astype("float64"))
    except (TypeError, ValueError):
        raise ConfigError(
            "data.source: the target is not a number; set data.source.task=classification if its "
            "values are classes"
        ) from None
    if not bool(torch.isfinite(y).all()):
        raise ConfigError(
            "data.source: the target holds NaN or infinite numbers: remove those rows"
        )
    return y.reshape(len(y), -1)
