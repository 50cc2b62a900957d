"""The transformer encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.building_blocks import (
    LayerStyle,
    make_activation,
    make_normalization,
    name_layers,
    sequence_shape,
    to_sequence,
)


class SelfAttention(nn.Module):
    """Multi-head self-attention, softmax(Q Kᵀ / √d) V a head (Vaswani et al. 2017, section 3.2).

    Keys have no bias: it would add the same number to all scores that the softmax compares, so no
    output would depend on it.

    Args:
        width: features of a token, shared out to the heads: d = width / heads.
        heads: number of heads.
        bias: whether queries, values and the output have a bias.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.

    >>> SelfAttention(width=8, heads=2)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"model.heads={heads} does not divide model.width={width}")
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens [n, steps, width] by attention."""
        # written out: the gradient of a fused kernel cannot be differentiated again
        mixed = self.attention_logits(tokens).softmax(-1) @ self.split_heads(self.value(tokens))
        return self.output(mixed.transpose(1, 2).flatten(2))

    def attention_logits(self, tokens: Tensor) -> Tensor:
        """Return Q Kᵀ / √d, [n, heads, steps, steps]: what each token makes of each other one."""
        q, k = (self.split_heads(f(tokens)) for f in (self.query, self.key))
        return q @ k.transpose(-1, -2) * self.scale

    def split_heads(self, tokens: Tensor) -> Tensor:
        """Split the features: [n, steps, width] → [n, heads, steps, width / heads]."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


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
        check_int("model.depth", depth)
        style = LayerStyle(activation, normalization, bias=bias)
        self.embedding = nn.Linear(features, width, bias=bias)
        # the scale of BERT (Devlin et al. 2019)
        self.positions = nn.Parameter(torch.empty(steps, width).normal_(std=0.02))
        self.layers = nn.Sequential(
            *(EncoderLayer(width, heads, hidden, style) for _ in range(depth))
        )
        # pre-norm leaves the sum of all layers as large as it comes
        self.last = name_layers(normalization=make_normalization(normalization, width))
        self.output = nn.Linear(width, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        tokens = self.layers(self.embedding(to_sequence(x)) + self.positions)
        return self.output(self.last(tokens).mean(1))


class EncoderLayer(nn.Module):
    """h = t + attention(norm(t)), then h + W₂ φ(W₁ norm(h) + b₁) + b₂, for every token t.

    Args:
        width: features of a token.
        heads: attention heads.
        hidden: units of the feed-forward part.
        style: of the model's layers.
    """

    def __init__(self, width: int, heads: int, hidden: int, style: LayerStyle) -> None:
        super().__init__()
        self.attention = name_layers(
            normalization=make_normalization(style.normalization, width),
            attention=SelfAttention(width, heads, style.bias),
        )
        self.feed_forward = name_layers(
            normalization=make_normalization(style.normalization, width),
            expand=nn.Linear(width, hidden, bias=style.bias),
            activation=make_activation(style.activation),
            contract=nn.Linear(hidden, width, bias=style.bias),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [n, steps, width] to tokens of the same shape."""
        h = tokens + self.attention(tokens)
        return h + self.feed_forward(h)
