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


def infer_task(values: np.ndarray, name: str = "auto", max_classes: int | None = None) -> Task:
    """Return the task that targets ask for, unless it is named.

    Texts and truth values are classes; whole numbers too, if there are at most ``max_classes``
    different ones; all else is a regression, and so are whole numbers in several columns.

    Args:
        values: the targets [n] or [n, columns].
        name: the task's name, or ``auto``.
        max_classes: None for any number of classes.

    Raises:
        ConfigError: there is no task of that name.

    >>> import numpy as np
    >>> infer_task(np.array(["a", "b"])).name, infer_task(np.array([0.5])).name
    ('classification', 'regression')
    >>> infer_task(np.arange(30), "auto", 20).name
    'regression'
    """
    tasks = all_tasks()
    if name != "auto":
        known = ["auto", *(task.name for task in tasks.values() if task.has_samples)]
        if name not in known:
            raise ConfigError(f"data.source.task is '{name}': {suggest(str(name), known)}")
        return tasks[name]
    return next(task for task in tasks.values() if task.recognizes(values, max_classes))
