"""Multi-head self-attention."""

from __future__ import annotations

from torch import Tensor, nn

from truerisk.core.errors import ConfigError


class Attention(nn.Module):
    """Multi-head self-attention, softmax(Q Kᵀ / √d) V a head (Vaswani et al. 2017, section 3.2).

    The product is written out rather than left to a fused kernel, whose gradient cannot be
    differentiated again. Keys have no bias: it would add the same number to all scores that the
    softmax compares, so no output would depend on it.

    Args:
        width: features of a token, shared out to the heads: d = width / heads.
        heads: number of heads.
        bias: whether queries, values and the output have a bias.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.

    >>> import torch
    >>> Attention(width=8, heads=2)(torch.zeros(3, 5, 8)).shape
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
        q, k, v = (self.split(f(tokens)) for f in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))

    def split(self, tokens: Tensor) -> Tensor:
        """Share the features out: [n, steps, width] → [n, heads, steps, width / heads]."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
