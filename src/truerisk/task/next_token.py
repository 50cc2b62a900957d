"""The next token at every place of a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from truerisk.core.errors import ConfigError
from truerisk.task.task import BATCH, FittedLoss, Task, average_scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TOKENS = 8192
"""Tokens in one forward pass: of 50,000 kinds of them the scores alone are 1.6 GB."""


class NextToken(Task):
    """Inputs are tokens, int64 [n, T], and so are targets; outputs are scores [n, T, V].

    The sample is the sequence: its loss is the mean over its tokens, so that standard errors count
    sequences, whose tokens depend on each other; of ``data=text`` they count documents. The
    error is the share of tokens whose highest score is another's.
    """

    name = "next_token"
    rank = 3
    phrase = "a sequence of tokens"
    losses = ("cross_entropy",)
    integer_inputs = True
    error_title = "token error"
    metric_kind = "Multiclass"
    refusals: ClassVar = {
        "real inputs": (
            "regularizer={name} mixes, shifts or differentiates inputs, and tokens are whole "
            "numbers: leave {name} out"
        )
    }

    def block_size(self, shape: Sequence[int]) -> int:
        """Return how many sequences at most go through a model at once, training aside.

        Args:
            shape: of a sequence, whose outputs are as long.
        """
        return max(1, min(BATCH, TOKENS // math.prod(shape)))

    def read_targets(
        self, values: np.ndarray, class_names: Sequence[str] | None = None
    ) -> tuple[Tensor, list[str] | None]:
        """Return targets int64 [n, T], without names.

        Args:
            values: whole numbers from 0, [n, T].
            class_names: not looked at.

        Raises:
            ConfigError: they are anything else.
        """
        import torch

        if values.dtype.kind not in "iu":
            raise ConfigError(
                f"data.source: data.source.task=next_token takes whole numbers [n, T] as targets, "
                f"and they are {values.dtype}"
            )
        y = torch.as_tensor(values.astype("int64"))
        self.check_targets(y, 0)
        return y, None

    def check_inputs(self, x: Any) -> None:
        """Refuse inputs that are no tokens.

        Raises:
            ConfigError: they are not whole numbers.
        """
        if getattr(x, "dtype", None) is not None and x.is_floating_point():
            raise ConfigError(
                f"data.source: data.source.task=next_token takes whole numbers [n, T] as inputs, "
                f"and they are {x.dtype}; data=arrays reads them as they are"
            )

    def check_targets(self, y: Tensor, num_outputs: int) -> None:
        """Refuse targets that are no tokens, or one a sequence.

        Args:
            y: the targets [n, T].
            num_outputs: the number of tokens V.

        Raises:
            ConfigError: they are not whole numbers from 0, in two dimensions.
        """
        if y.is_floating_point() or y.ndim != 2 or bool((y < 0).any()):
            raise ConfigError(
                "data.source: data.source.task=next_token takes a token for every place of a "
                f"sequence, whole numbers from 0, and the targets are {y.dtype} {tuple(y.shape)} "
                "or below 0"
            )

    def count_targets(self, x: Any, y: Tensor, class_names: Sequence[str] | None) -> int:
        """Return V, the largest token among inputs and targets plus 1.

        Args:
            x: the inputs [n, T].
            y: the targets [n, T].
            class_names: not looked at.
        """
        tokens = [part for part in (x, y) if hasattr(part, "max") and len(part)]
        return max((int(part.max()) + 1 for part in tokens), default=0)

    def loss_types(self) -> tuple[type, ...]:
        """Return the losses on scores of tokens."""
        from torch import nn

        return (nn.CrossEntropyLoss, nn.NLLLoss)

    def try_outputs(self, like: Tensor, n: int, output_size: int) -> Tensor:
        """Return zeros [n, 2, V].

        Args:
            like: a tensor of the type and device they take.
            n: sequences.
            output_size: V.
        """
        return like.new_zeros(n, 2, output_size)

    def try_targets(self, outputs: Tensor) -> Tensor:
        """Return token 0 at every place, [n, T]."""
        return outputs.new_zeros(outputs.shape[:-1]).long()

    def compute_losses(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each token, [n, T].

        Args:
            fitted: the loss, which takes scores [n · T, V] and tokens [n · T].
            outputs: scores [n, T, V].
            y: tokens [n, T].
        """
        # flat, as most losses want classes in the second place, and users' own are not asked
        losses: Tensor = fitted.loss(outputs.flatten(0, -2), y.flatten())
        if not losses.ndim:
            return losses
        return losses.reshape(*y.shape, *losses.shape[1:])

    def spread_weights(self, weight: Tensor, losses: Tensor, y: Tensor) -> Tensor:
        """Return the weight of each token, [n, T].

        Args:
            weight: one a token of the vocabulary, [V].
            losses: [n, T].
            y: tokens [n, T].
        """
        return weight[y]

    def compute_errors(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the share of wrong tokens of each sequence, [n].

        Args:
            fitted: the loss.
            outputs: scores [n, T, V].
            y: tokens [n, T].
        """
        return self.compute_place_errors(fitted, outputs, y).flatten(1).mean(1)

    def compute_place_errors(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return which tokens are wrong, 1 or 0, [n, T].

        Args:
            fitted: the loss.
            outputs: scores [n, T, V].
            y: tokens [n, T].
        """
        import torch

        return (outputs.argmax(-1) != y).to(torch.get_default_dtype())

    def stand_in_targets(self, x: Any, num_outputs: int, classes: Sequence[str]) -> Any:
        """Return the inputs, which are tokens as well.

        Args:
            x: tokens [n, T].
            num_outputs: the number of tokens V.
            classes: not looked at.
        """
        return x

    def average_outputs(self, fitted: FittedLoss, outputs: Sequence[Tensor]) -> Tensor:
        """Return the outputs that stand for the mean of the probabilities.

        Args:
            fitted: the loss.
            outputs: of each model.
        """
        return average_scores(outputs)

    def read_likelihoods(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return log p(token | the tokens before), [n, T], in double precision.

        Args:
            fitted: the loss.
            outputs: scores [n, T, V].
            y: tokens [n, T].
        """
        return outputs.double().log_softmax(-1).gather(-1, y.long()[..., None])[..., 0]

    def read_predictions(
        self, fitted: FittedLoss, outputs: Tensor, probabilities: Tensor | None
    ) -> Tensor:
        """Return the token of the highest score at each place, int64 [n, T].

        Args:
            fitted: the loss.
            outputs: scores [n, T, V].
            probabilities: not looked at.
        """
        return outputs.argmax(-1)

    def bayes_outputs(self, population: Any, x: Tensor, fitted: FittedLoss) -> Tensor:
        """Return log p(token | the tokens up to each place), [n, T, V].

        Args:
            population: the distribution P, whose ``bayes`` gives the probabilities.
            x: tokens [n, T].
            fitted: the loss that the outputs are for.
        """
        scores: Tensor = population.bayes(x).log()
        return scores
