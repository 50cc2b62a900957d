"""What is learned: one object a task, found by being in this folder.

It is imported without torch, so that tables and figures of finished runs can ask for their titles.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from truerisk.core.errors import ConfigError, suggest
from truerisk.task.task import FittedLoss, Task, config_has_samples

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np

__all__ = ["FittedLoss", "Task", "all_tasks", "config_has_samples", "get_task", "infer_task"]

UNKNOWN = Task()
"""The task of a run that broke off before its data were read: risks, and no errors."""


@cache
def all_tasks() -> dict[str, Task]:
    """Return every task by the name that configurations and run folders have for it."""
    # by being there, so that a new task is one file
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    kinds = sorted(Task.__subclasses__(), key=lambda kind: kind.rank)
    return {kind.name: kind() for kind in kinds}


def get_task(name: str) -> Task:
    """Return the task of that name.

    An empty name, as the folder of a run that broke off early has, gives a task without errors.

    Raises:
        ConfigError: there is none of that name.

    >>> get_task("classification").error_title
    '0-1 error'
    """
    tasks = all_tasks()
    if name in tasks:
        return tasks[name]
    if not name:
        return UNKNOWN
    known = [task.name for task in tasks.values() if task.has_samples]
    raise ConfigError(f"data.source.task is '{name}': {suggest(str(name), known)}")


def infer_task(
    values: np.ndarray,
    name: str = "auto",
    max_classes: int | None = None,
    suited: Collection[str] = (),
) -> Task:
    """Return the task that targets ask for, unless it is named.

    Texts, truth values and one-hot rows are classes; whole numbers too, if there are at most
    ``max_classes`` different ones; lists of labels and columns of 0 and 1 are labels; all else is
    a regression, and so are whole numbers in several columns. What a loss is for goes before: under
    a regression loss numbers of any kind are quantities, under one of classes 0.0 and 1.0 are
    classes.

    Args:
        values: the targets [n] or [n, columns].
        name: the task's name, or ``auto``.
        max_classes: None for any number of classes.
        suited: names of the tasks that the loss is for; none if it is for any.

    Raises:
        ConfigError: there is no task of that name.

    >>> import numpy as np
    >>> infer_task(np.array(["a", "b"])).name, infer_task(np.array([0.5])).name
    ('classification', 'regression')
    >>> infer_task(np.arange(30), "auto", 20).name
    'regression'
    >>> infer_task(np.array([1, 2, 2]), suited=["regression"]).name
    'regression'
    """
    tasks = all_tasks()
    if name != "auto":
        known = ["auto", *(task.name for task in tasks.values() if task.has_samples)]
        if name not in known:
            raise ConfigError(f"data.source.task is '{name}': {suggest(str(name), known)}")
        return tasks[name]
    recognized = [task for task in tasks.values() if task.recognizes(values, max_classes)]
    for task in tasks.values():
        if task.name in suited and (task in recognized or task.admits(values, max_classes)):
            return task
    return recognized[0]
