"""Several labels a sample, each of them there or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from truerisk.core.errors import ConfigError
from truerisk.task.task import FittedLoss, Task

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
    error_title = "0-1 error a label"
    metric_kind = "Multilabel"
    refusals: ClassVar = {
        "class probabilities": (
            "regularizer={name} needs one class a sample, but the data's task is multilabel: "
            "leave {name} out, or pick data with classes"
        )
    }

    def read_targets(
        self, values: np.ndarray, class_names: Sequence[str] | None = None
    ) -> tuple[Tensor, list[str] | None]:
        """Return targets float64 [n, labels], without names.

        Args:
            values: 0 and 1, or truth values, [n, labels] or [n].
            class_names: not looked at.

        Raises:
            ConfigError: they are anything else.

        >>> import numpy as np
        >>> MultiLabel().read_targets(np.array([[True, False], [True, True]]))[0]
        tensor([[1., 0.],
                [1., 1.]], dtype=torch.float64)
        """
        import torch

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

    def bayes_outputs(self, population: Any, x: Tensor, fitted: FittedLoss) -> Tensor:
        """Return the log-odds of each label, [n, labels].

        Args:
            population: the distribution P, whose ``bayes`` gives p(label | x).
            x: inputs in P's own units.
            fitted: the loss that the outputs are for.
        """
        odds: Tensor = population.bayes(x).logit()
        return odds
