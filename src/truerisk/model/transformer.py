"""The transformer encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.activation import activation as activation_named
from truerisk.model.attention import Attention
from truerisk.model.block import Style, chain
from truerisk.model.normalization import normalization as normalization_named
from truerisk.model.shape import sequence, sequence_shape


class Transformer(nn.Module):
    """Small pre-norm transformer encoder (Vaswani et al. 2017; pre-norm: Xiong et al. 2020).

    The steps of the sample, read as a sequence as `sequence_shape` says, are embedded linearly, get
    learned positions added and pass ``depth`` layers; their mean goes through a last normalization
    and a linear layer.

    Args:
        input_shape: shape of one sample.
        output_size: number of outputs.
        width: features of a token.
        depth: number of layers.
        heads: attention heads; divides ``width``.
        expansion: hidden units of the feed-forward part as a multiple of ``width``.
        activation: of the feed-forward part.
        normalization: layer or none.
        bias: whether layers have a bias.

    Raises:
        ConfigError: a size is not a whole number or does not fit, or a name is not known.

    >>> Transformer((1, 40), 10)(torch.zeros(5, 1, 40)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 32,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        activation: str = "gelu",
        normalization: str = "layer",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if normalization not in ("layer", "none"):
            raise ConfigError(
                f"model.normalization={normalization} does not fit model=transformer: layer or none"
            )
        steps, features = sequence_shape("transformer", input_shape)
        check_int("model.width", width)
        check_int("model.heads", heads)
        hidden = width * check_int("model.expansion", expansion)
        style = Style(activation, normalization, bias=bias)
        self.embedding = nn.Linear(features, width, bias=bias)
        self.positions = nn.Parameter(torch.empty(steps, width).normal_(std=0.02))
        self.layers = nn.Sequential(
            *(Layer(width, heads, hidden, style) for _ in range(check_int("model.depth", depth)))
        )
        self.last = chain(normalization=normalization_named(normalization, width))
        self.output = nn.Linear(width, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        tokens = self.layers(self.embedding(sequence(x)) + self.positions)
        return self.output(self.last(tokens).mean(1))


class Layer(nn.Module):
    """h = t + attention(norm(t)), then h + W₂ φ(W₁ norm(h) + b₁) + b₂, for every token t."""

    def __init__(self, width: int, heads: int, hidden: int, style: Style) -> None:
        super().__init__()
        self.attention = chain(
            normalization=normalization_named(style.normalization, width),
            attention=Attention(width, heads, style.bias),
        )
        self.feed_forward = chain(
            normalization=normalization_named(style.normalization, width),
            expand=nn.Linear(width, hidden, bias=style.bias),
            activation=activation_named(style.activation),
            contract=nn.Linear(hidden, width, bias=style.bias),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [n, steps, width] to tokens of the same shape."""
        mixed = tokens + self.attention(tokens)
        return mixed + self.feed_forward(mixed)
