"""The confidence penalty."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.regularizer.base import Forward, Regularizer


class Entropy(Regularizer):
    """Confidence penalty: ``λR = −β · mean_i H(p(·|xᵢ))``, which rewards undecided predictions.

    p is the softmax of the outputs [n, K], or the sigmoid of a single output, and
    ``H(p) = −Σ_k p_k log p_k`` in nats. The penalty lies between −β log K (uniform) and 0
    (certain). It is for classification.

    Source: Pereyra, Tucker, Chorowski, Kaiser & Hinton, "Regularizing Neural Networks by Penalizing
    Confident Output Distributions", ICLR workshop 2017, §3.1.

    Args:
        coefficient: β.

    Raises:
        ConfigError: the targets are not class labels.

    >>> import torch
    >>> entropy(torch.zeros(1, 4))
    tensor([1.3863])
    """

    def __init__(self, coefficient: float) -> None:
        self.coefficient = check_float("regularizer.entropy.coefficient", coefficient)

    def penalty(self, forward: Forward) -> Tensor:
        """−β times the mean entropy."""
        if forward.batch.y.is_floating_point():
            raise ConfigError(
                "regularizer=entropy needs class probabilities, but the data's task is regression: "
                "leave entropy out, or pick data with classes"
            )
        return -self.coefficient * entropy(forward.outputs).mean()


def entropy(outputs: Tensor) -> Tensor:
    """H of the softmax of [n, K] outputs, or of the sigmoid of [n, 1], in nats: [n]."""
    if outputs.dtype.itemsize < 4:
        outputs = outputs.float()
    if outputs.shape[-1] == 1:
        z = outputs.squeeze(-1)
        return softplus(z) - z * z.sigmoid()
    log_p = outputs.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
