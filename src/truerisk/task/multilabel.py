"""Several labels a sample, each of them there or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from truerisk.core.errors import ConfigError, suggest
from truerisk.task.classification import label_name, order_classes
from truerisk.task.task import (
    FittedLoss,
    Task,
    average_logits,
    holds_flags,
    holds_lists,
    is_one_hot,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class MultiLabel(Task):
    """Targets are 0 or 1, float [n, labels]; outputs are logits [n, labels].

    The risk is the mean over the labels of a sample, and so is the error: the share of labels that
    the signs of the logits get wrong.
    """

    name = "multilabel"
    rank = 2
    phrase = "multi-label data"
    losses = ("bce",)
    takes_lists = True
    error_title = "0-1 error a label"
    metric_kind = "Multilabel"
    refusals: ClassVar = {
        "class probabilities": (
            "regularizer={name} needs one class a sample, but the data's task is multilabel: "
            "leave {name} out, or pick data with classes"
        )
    }

    def recognizes(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are lists of labels, or whole numbers 0 and 1 in several columns.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: not looked at.
        """
        flags = values.dtype.kind != "f" and holds_flags(values) and not is_one_hot(values)
        return flags or holds_lists(values)

    def admits(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are 0 and 1 in several columns, as floating-point numbers.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: not looked at.
        """
        return holds_flags(values)

    def read_targets(
        self, values: np.ndarray, class_names: Sequence[str] | None = None
    ) -> tuple[Tensor, list[Any] | None]:
        """Return targets float64 [n, labels], with the names of labels that came in lists.

        Args:
            values: 0 and 1, or truth values, [n, labels] or [n]; or a list of labels a sample.
            class_names: names that other samples gave, whose order the labels of lists take.

        Raises:
            ConfigError: they are anything else, or a label is none of ``class_names``.

        >>> import numpy as np
        >>> MultiLabel().read_targets(np.array([[True, False], [True, True]]))[0]
        tensor([[1., 0.],
                [1., 1.]], dtype=torch.float64)
        >>> lists = np.array([["b"], ["a", "b"], []], dtype=object)
        >>> MultiLabel().read_targets(lists)
        (tensor([[0., 1.],
                [1., 1.],
                [0., 0.]], dtype=torch.float64), ['a', 'b'])
        """
        import torch

        if holds_lists(values):
            return read_label_lists(values.tolist(), class_names)
        try:
            y = torch.as_tensor(values.astype("float64"))
        except (TypeError, ValueError):
            raise ConfigError(
                "data.source: data.source.task=multilabel takes a column of 0 and 1 for each "
                "label, and the target holds texts or lists"
            ) from None
        # a single label may come without a dimension of its own
        y = y.reshape(len(y), -1)
        self.check_targets(y, y.shape[1])
        return y, None

    def find_classes(self, y: Tensor) -> list[int]:
        """Return the columns of the labels that some sample has."""
        return y.any(0).nonzero().flatten().tolist()

    def renumber_targets(self, y: Tensor, mine: Sequence[str], names: Sequence[str]) -> Tensor:
        """Return targets whose columns stand as another run had them; a label not here is 0.

        Args:
            y: targets [n, labels].
            mine: the names of their labels.
            names: those of the other run, in its order.
        """
        ordered = y.new_zeros(len(y), len(names))
        for k, name in enumerate(mine):
            if name in names:
                ordered[:, list(names).index(name)] = y[:, k]
        return ordered

    def check_targets(self, y: Tensor, num_outputs: int) -> None:
        """Refuse targets that are not 0 or 1.

        Args:
            y: the targets [n, labels].
            num_outputs: the number of labels.

        Raises:
            ConfigError: one of them is not.
        """
        if y.ndim != 2 or not bool(((y == 0) | (y == 1)).all()):
            raise ConfigError(
                "data.source: data.source.task=multilabel takes 0 or 1 for each label, "
                "[n, labels], and the target holds other numbers"
            )

    def loss_types(self) -> tuple[type, ...]:
        """Return the losses on a logit a label."""
        from torch import nn

        return (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)

    def encode_targets(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the targets in the type of the outputs.

        Args:
            fitted: the loss.
            outputs: logits [n, labels].
            y: targets [n, labels].
        """
        return y.to(outputs.dtype)

    def compute_errors(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the share of wrong labels of each sample, [n].

        Args:
            fitted: the loss.
            outputs: logits [n, labels].
            y: targets [n, labels].
        """
        import torch

        return ((outputs > 0) != (y > 0)).to(torch.get_default_dtype()).mean(-1)

    def average_outputs(self, fitted: FittedLoss, outputs: Sequence[Tensor]) -> Tensor:
        """Return the outputs that stand for the mean of the probabilities.

        Args:
            fitted: the loss.
            outputs: of each model.
        """
        return average_logits(outputs)

    def read_probabilities(self, fitted: FittedLoss, outputs: Tensor) -> Tensor | None:
        """Return p(label | x), [n, labels].

        Args:
            fitted: the loss.
            outputs: logits [n, labels].
        """
        return outputs.sigmoid()

    def read_likelihoods(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return log p(y | x) of each label, [n, labels], in double precision.

        Args:
            fitted: the loss.
            outputs: logits [n, labels].
            y: targets [n, labels].
        """
        from torch.nn import functional

        z = outputs.double()
        return -functional.binary_cross_entropy_with_logits(z, y.to(z), reduction="none")

    def read_predictions(
        self, fitted: FittedLoss, outputs: Tensor, probabilities: Tensor | None
    ) -> Tensor:
        """Return 1 for each label that is more likely than not, int64 [n, labels].

        Args:
            fitted: the loss.
            outputs: logits [n, labels].
            probabilities: [n, labels], or None.
        """
        if probabilities is not None:
            return (probabilities > 0.5).long()
        return (outputs > 0).long()

    def spread_weights(self, weight: Tensor, losses: Tensor, y: Tensor) -> Tensor:
        """Return the weight of each label, [labels], which is the same for all samples.

        Args:
            weight: one a label, [labels].
            losses: [n, labels].
            y: the targets [n, labels].
        """
        return weight

    def constant_outputs(self, fitted: FittedLoss, y: Tensor) -> list[Tensor]:
        """Return the log-odds of each label's share, [1, labels].

        Args:
            fitted: the loss that the outputs are for.
            y: the training targets [n, labels].
        """
        return [y.double().mean(0, keepdim=True).clamp(1e-12, 1 - 1e-12).logit()]

    def bayes_outputs(self, population: Any, x: Tensor, fitted: FittedLoss) -> Tensor:
        """Return the log-odds of each label, [n, labels].

        Args:
            population: the distribution P, whose ``bayes`` gives p(label | x).
            x: inputs in P's own units.
            fitted: the loss that the outputs are for.
        """
        odds: Tensor = population.bayes(x).logit()
        return odds


def read_label_lists(
    lists: Sequence[Sequence[Any]], class_names: Sequence[str] | None = None
) -> tuple[Tensor, list[Any]]:
    """Return targets float64 [n, labels] with a 1 for each label of a list, and the labels.

    Args:
        lists: the labels of each sample, in any order.
        class_names: names that other samples gave, whose order the columns take.

    Raises:
        ConfigError: a label is none of ``class_names``.
    """
    import torch

    known = list(class_names or order_classes([label for labels in lists for label in labels]))
    names = list(map(label_name, known))
    places = {name: k for k, name in enumerate(names)}
    y = torch.zeros(len(lists), len(names), dtype=torch.float64)
    for row, labels in enumerate(lists):
        for label in map(label_name, labels):
            if label not in places:
                raise ConfigError(
                    f"data.source: label '{label}' is not among those trained on; "
                    f"{suggest(label, names)}"
                )
            y[row, places[label]] = 1
    return y, known
