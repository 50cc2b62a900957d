"""One or several quantities a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from truerisk.core.errors import ConfigError
from truerisk.task.task import FittedLoss, Task, holds_flags

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


OUTLYING = 10.0
"""Standard deviations by which label noise moves a target."""


class Regression(Task):
    """Targets are quantities, float [n, outputs], and so are the outputs."""

    name = "regression"
    rank = 1
    scales_targets = True
    phrase = "a regression"
    losses = ("mse", "mae", "huber", "quantile", "poisson")
    population_method = "mean"
    refusals: ClassVar = {
        "class probabilities": (
            "regularizer={name} needs class probabilities, but the data's task is regression: "
            "leave {name} out, or pick data with classes"
        )
    }

    def recognizes(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are numbers and no labels; classes have been asked before.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: different whole numbers up to which they are classes; None for any.
        """
        if values.dtype.kind in "iub":
            return not holds_flags(values)
        return values.dtype.kind == "f"

    def admits(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are numbers, of any kind.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: not looked at.
        """
        return values.dtype.kind in "biuf"

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

    def check_label_noise(self, share: float) -> None:
        """Take any share: a quantity can be moved.

        Args:
            share: from 0 to 1.
        """

    def add_label_noise(
        self, y: Tensor, share: float, num_outputs: int, generator: torch.Generator
    ) -> Tensor:
        """Make outliers: move round(share · n) randomly chosen targets up by 10 deviations of y.

        With the same generator state a larger share moves the same targets and more. All to one
        side, where they do the mean the most harm (Huber 1964, §4).

        Args:
            y: targets [n, outputs].
            share: from 0 to 1.
            num_outputs: not looked at.
            generator: of the draws.

        >>> import torch
        >>> draw, y = torch.Generator().manual_seed(0), torch.tensor([[0.0], [2.0]] * 50)
        >>> float(Regression().add_label_noise(y, 0.1, 1, draw).mean())  # 1 + 0.1 · 10
        2.0
        """
        import torch

        chosen = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
        moved = y.clone()
        moved[chosen] += OUTLYING * y.std(0, correction=0)
        return moved

    def loss_types(self) -> tuple[type, ...]:
        """Return the losses on differences."""
        from torch import nn

        return (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)

    def encode_targets(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the targets in the units and the type of the outputs.

        Args:
            fitted: the loss.
            outputs: the model's outputs [n, outputs].
            y: targets [n, outputs].
        """
        return fitted.scale_targets(y).to(outputs.dtype)

    def read_predictions(
        self, fitted: FittedLoss, outputs: Tensor, probabilities: Tensor | None
    ) -> Tensor:
        """Return the quantities that outputs stand for, [n, outputs].

        Args:
            fitted: the loss, for which they may be logarithms.
            outputs: in the targets' units.
            probabilities: None.
        """
        if hasattr(fitted.loss, "decode_mean"):
            return fitted.loss.decode_mean(outputs)
        return outputs

    def constant_outputs(self, fitted: FittedLoss, y: Tensor) -> list[Tensor]:
        """Return the mean and the median of each column, [1, outputs].

        Args:
            fitted: the loss that the outputs are for.
            y: the training targets [n, outputs].
        """
        z = fitted.scale_targets(y)
        if hasattr(fitted.loss, "fit_constant"):
            return [fitted.loss.fit_constant(z)]
        return [z.mean(0, keepdim=True), z.quantile(0.5, 0, keepdim=True)]

    def bayes_outputs(self, population: Any, x: Tensor, fitted: FittedLoss) -> Tensor:
        """Return E[y | x] in the units of the outputs, [n, outputs].

        Args:
            population: the distribution P, with ``mean``.
            x: inputs in P's own units.
            fitted: the loss that the outputs are for.
        """
        mean: Tensor = fitted.scale_outputs(population.mean(x))
        if hasattr(fitted.loss, "encode_mean"):
            return fitted.loss.encode_mean(mean)
        return mean
