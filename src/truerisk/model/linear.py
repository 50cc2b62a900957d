"""The linear model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from truerisk.model.shape import features


class Linear(nn.Module):
    """Linear (with a cross-entropy loss: multinomial logistic) regression: W·vec(x) + b.

    Args:
        input_shape: shape of one sample; d numbers in all.
        output_size: number of outputs K.
        bias: whether there is a b. Parameters: K·d, and K with a bias.

    >>> sum(p.numel() for p in Linear((1, 40), 10).parameters())
    410
    """

    def __init__(self, input_shape: Sequence[int], output_size: int, bias: bool = True) -> None:
        super().__init__()
        self.output = nn.Linear(features(input_shape), output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        return self.output(x.flatten(1))
