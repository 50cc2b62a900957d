"""One or several quantities a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from truerisk.core.errors import ConfigError
from truerisk.task.task import FittedLoss, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Regression(Task):
    """Targets are quantities, float [n, outputs], and so are the outputs."""

    name = "regression"
    rank = 1
    phrase = "a regression"
    losses = ("mse", "mae", "huber")
    population_method = "mean"
    refusals: ClassVar = {
        "class probabilities": (
            "regularizer={name} needs class probabilities, but the data's task is regression: "
            "leave {name} out, or pick data with classes"
        )
    }

    def recognizes(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are numbers; classes have been asked before.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: different whole numbers up to which they are classes; None for any.
        """
        return True

    def read_targets(
        self, values: np.ndarray, class_names: Sequence[str] | None = None
    ) -> tuple[Tensor, list[str] | None]:
        """Return targets float64 [n, outputs], without names.

        Args:
            values: numbers [n] or [n, outputs].
            class_names: not looked at.

        Raises:
            ConfigError: they are not finite numbers.
        """
        import torch

        try:
            y = torch.as_tensor(values.astype("float64"))
        except (TypeError, ValueError):
            raise ConfigError(
                "data.source: the target is not a number; set data.source.task=classification if "
                "its values are classes"
            ) from None
        if not bool(torch.isfinite(y).all()):
            raise ConfigError(
                "data.source: the target holds NaN or infinite numbers: remove those rows"
            )
        return y.reshape(len(y), -1), None

    def loss_types(self) -> tuple[type, ...]:
        """Return the losses on differences."""
        from torch import nn

        return (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)

    def encode_targets(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the targets in the type of the outputs.

        Args:
            fitted: the loss.
            outputs: the model's outputs [n, outputs].
            y: targets [n, outputs].
        """
        return y.to(outputs.dtype)
