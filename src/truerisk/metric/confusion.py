"""Which class is taken for which: a table and a figure at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.metric.metric import Metric, MetricEstimate, Seen
from truerisk.task import FittedLoss


class ConfusionMatrix(Metric):
    """How many samples of each class, a row each, are taken for which, a column each.

    It is counted on each split at the end of a run, at the best weights; ``tables.json`` has the
    numbers, ``figures/confusion_matrix.png`` the picture.

    Args:
        most_classes: tables of more classes are refused.
    """

    each_epoch = False
    parts = ()

    def __init__(self, most_classes: int = 100) -> None:
        self.most_classes = check_int("metric.confusion_matrix.most_classes", most_classes)
        self.classes, self.class_names = 0, [""]

    def fit_task(
        self, name: str, surrogate: FittedLoss, outputs: int, class_names: Sequence[str] | None
    ) -> Metric:
        """Return the table for a task with classes.

        Args:
            name: in the configuration.
            surrogate: the loss, with its task.
            outputs: the number of classes.
            class_names: names of the classes, where there are any.

        Raises:
            ConfigError: there are no classes, or too many.
        """
        task: Any = surrogate.task  # type: ignore[attr-defined]
        if not task.has_classes:
            raise ConfigError(f"metric.{name} counts classes, and the data is {task.phrase}")
        if outputs > self.most_classes:
            raise ConfigError(
                f"metric.{name}: a table of {outputs} classes is no picture; raise "
                f"metric.{name}.most_classes, or leave it out"
            )
        fitted: Any = super().fit_task(name, surrogate, outputs, class_names)
        fitted.classes = outputs
        fitted.class_names = list(class_names or map(str, range(outputs)))
        return fitted

    def estimate(
        self, seen: Seen, thorough: bool = False, groups: Tensor | None = None
    ) -> MetricEstimate:
        """Count the samples of each class that are taken for each.

        Args:
            seen: targets and predicted classes, [n].
            thorough: not looked at.
            groups: not looked at.
        """
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        y, predicted = seen["target"].long(), seen["predicted"].long()
        table = multiclass_confusion_matrix(predicted, y, self.classes, validate_args=False)
        return MetricEstimate({}, {}, len(y), table.tolist())
