"""A decoder of tokens, as language models of today are built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.building_blocks import misfit_error

ROTARY_BASE = 10_000.0
"""Of the angles' geometric series (Su et al. 2021, §3.2.2)."""
BEGIN = 0
"""The token that stands before each document, as ``data=text`` numbers them."""
NORMS = ("rms", "layer")
POSITIONS = ("rotary", "learned", "none")
GATES = ("gelu", "relu2", "swiglu")


class DecoderStyle(NamedTuple):
    """What the layers of one decoder have in common.

    Attributes:
        width: features of a token.
        heads: of queries.
        kv_heads: of keys and values; each serves ``heads / kv_heads`` of queries.
        hidden: units of the feed-forward part.
        activation: gelu, relu2 or swiglu.
        normalization: rms or layer.
        qk_norm: whether queries and keys are normalized, a head each.
        bias: whether layers have a bias.
    """

    width: int
    heads: int
    kv_heads: int
    hidden: int
    activation: str
    normalization: str
    qk_norm: bool
    bias: bool

    def make_norm(self) -> nn.Module:
        """Build a normalization over the features of a token."""
        if self.normalization == "rms":
            return nn.RMSNorm(self.width, eps=1e-5)
        return nn.LayerNorm(self.width, bias=self.bias)


class SquaredReLU(nn.ReLU):
    """``max(0, x)²`` (So et al. 2021, "Primer").

    >>> SquaredReLU()(torch.tensor([-1.0, 3.0]))
    tensor([0., 9.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return max(0, x)², of the shape of x."""
        return F.relu(x).square()


class GPT(nn.Module):
    """Decoder whose outputs at each place depend on the tokens up to it (Radford et al. 2019).

    ``h ← h + attention(norm(h))``, then ``h ← h + feed_forward(norm(h))`` in each of ``depth``
    layers, after an embedding and before a last norm and a linear map to scores. Weights and
    embeddings begin as N(0, 0.02²), those that write into the sum h as N(0, 0.02²/(2·depth)),
    biases at 0: the published rule of GPT-2.

    Args:
        input_shape: (context,), the tokens of a sequence.
        output_size: V, the tokens there are.
        width: features of a token.
        depth: number of layers.
        heads: attention heads; divides ``width``.
        kv_heads: heads of keys and values, each shared by heads / kv_heads of queries (Ainslie et
            al. 2023); None for as many as heads.
        expansion: hidden units of the feed-forward part as a multiple of ``width``; of ``swiglu``
            two thirds of it, which come to as many parameters.
        activation: ``gelu``, ``relu2`` or ``swiglu`` (Shazeer 2020).
        normalization: ``rms`` (Zhang & Sennrich 2019) or ``layer``.
        positions: ``rotary`` (Su et al. 2021), ``learned``, or ``none``.
        qk_norm: whether queries and keys are normalized before their product (Henry et al. 2020).
        tied: whether the scores' matrix is the embedding's (Press & Wolf 2017).
        bias: whether layers have a bias.
        within_documents: whether attention stays within a document: one begins at each token 0.

    Raises:
        ConfigError: a size does not fit, a name is not known, or samples are no tokens.

    >>> GPT((12,), 50)(torch.zeros(2, 12, dtype=torch.long)).shape
    torch.Size([2, 12, 50])
    """

    reads_tokens = True

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        expansion: int = 4,
        activation: str = "gelu",
        normalization: str = "rms",
        positions: str = "rotary",
        qk_norm: bool = False,
        tied: bool = True,
        bias: bool = False,
        within_documents: bool = False,
    ) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise misfit_error("gpt", "sequences of tokens, as data=text has them", input_shape)
        _check_names(activation, normalization, positions)
        sizes = {"width": width, "depth": depth, "heads": heads, "expansion": expansion}
        for key, value in sizes.items():
            check_int(f"model.{key}", value)
        shared = heads if kv_heads is None else check_int("model.kv_heads", kv_heads)
        if width % heads:
            raise ConfigError(f"model.heads={heads} does not divide model.width={width}")
        if heads % shared:
            raise ConfigError(f"model.kv_heads={shared} does not divide model.heads={heads}")
        if positions == "rotary" and width // heads % 2:
            raise ConfigError(
                f"model.positions=rotary turns pairs of features, and a head has {width // heads}: "
                "choose an even model.width / model.heads"
            )
        # its three matrices then have as many parameters as the two of others
        hidden = expansion * width
        if activation == "swiglu":
            hidden = max(1, round(2 * hidden / 3))
        style = DecoderStyle(width, heads, shared, hidden, activation, normalization, qk_norm, bias)
        self.positions_kind, self.within_documents = positions, within_documents
        self.head_size = width // heads
        self.embedding = nn.Embedding(output_size, width)
        if positions == "learned":
            self.positions = nn.Parameter(torch.empty(int(input_shape[0]), width))
        self.layers = nn.ModuleList(DecoderLayer(style) for _ in range(depth))
        self.last = style.make_norm()
        self.output = nn.Linear(width, output_size, bias=False)
        # under the embedding's name alone, as modules list a shared parameter once
        if tied:
            self.output.weight = self.embedding.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights by the rule of GPT-2 (Radford et al. 2019, §2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            # each layer writes twice into the sum, which so keeps its size over the depth
            if name.endswith(("attention.output.weight", "feed_forward.contract.weight")):
                with torch.no_grad():
                    parameter.div_(math.sqrt(2 * len(self.layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [n, T] to scores [n, T, V] of the token that follows each."""
        if x.is_floating_point():
            raise ConfigError(
                "model=gpt reads tokens, which are whole numbers: take data=text, or data=arrays "
                "data.source.task=next_token"
            )
        steps = x.shape[1]
        h = self.embedding(x)
        turn = None
        if self.positions_kind == "learned":
            if steps > len(self.positions):
                raise ConfigError(
                    f"model.positions=learned knows {len(self.positions)} places, and a sequence "
                    f"has {steps}: cut it, or train with a larger data.source.context"
                )
            h = h + self.positions[:steps]
        elif self.positions_kind == "rotary":
            turn = rotary_angles(steps, self.head_size, h)
        mask = mask_documents(x) if self.within_documents else None
        for layer in self.layers:
            h = layer(h, turn, mask)
        scores: Tensor = self.output(self.last(h))
        return scores


def _check_names(activation: str, normalization: str, positions: str) -> None:
    for key, name, known in (
        ("activation", activation, GATES),
        ("normalization", normalization, NORMS),
        ("positions", positions, POSITIONS),
    ):
        if name not in known:
            raise ConfigError(f"model.{key}={name} is not known; {suggest(str(name), known)}")


def mask_documents(x: Tensor) -> Tensor:
    """Return which places each place may look at: those up to it in its document, [n, 1, T, T].

    Args:
        x: tokens [n, T].

    >>> mask_documents(torch.tensor([[7, 0, 5]]))[0, 0].int()
    tensor([[1, 0, 0],
            [0, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    """
    # a sequence may begin within a document, whose number is 0 then
    document = (x == BEGIN).cumsum(1)
    same = document[:, None, :, None] == document[:, None, None, :]
    return same & torch.ones_like(same[:1, :1]).tril()


def rotary_angles(steps: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the angles t · 10000^(−2i/d) at place t, [T, d/2] each.

    Args:
        steps: T.
        size: d, features of a head.
        like: a tensor of the type and device they take.
    """
    # in single precision at least: in 8 bits of mantissa far places would fall together
    kind = torch.promote_types(like.dtype, torch.float32)
    powers = torch.arange(0, size, 2, device=like.device, dtype=kind) / size
    angles = torch.outer(torch.arange(steps, device=like.device, dtype=kind), ROTARY_BASE**-powers)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turn_pairs(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (xᵢ, xᵢ₊d/2) of each head by its place's angles.

    Args:
        x: queries or keys [n, heads, T, d].
        turn: see `rotary_angles`.
    """
    # halves rather than neighbours, as a permutation of features is all the difference
    cosine, sine = turn
    a, b = x.chunk(2, -1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


class CausalAttention(nn.Module):
    """Attention of each place to those up to it, by torch's fused kernel.

    Args:
        style: of the decoder.
    """

    def __init__(self, style: DecoderStyle) -> None:
        super().__init__()
        self.heads, self.kv_heads = style.heads, style.kv_heads
        size = style.width // style.heads
        self.query = nn.Linear(style.width, style.width, bias=style.bias)
        self.key = nn.Linear(style.width, size * style.kv_heads, bias=style.bias)
        self.value = nn.Linear(style.width, size * style.kv_heads, bias=style.bias)
        self.output = nn.Linear(style.width, style.width, bias=style.bias)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if style.qk_norm:
            self.query_norm, self.key_norm = (nn.RMSNorm(size, eps=1e-5) for _ in range(2))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        """Mix tokens [n, T, width].

        Args:
            x: the tokens.
            turn: rotary angles; None for none.
            mask: which places each may look at, [n, 1, T, T]; None for all up to it.
        """
        q, k = self._make_pair(x, turn)
        v = self.value(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=mask is None, enable_gqa=self.kv_heads != self.heads
        )
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        return mixed

    def attention_logits(
        self, x: Tensor, turn: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> Tensor:
        """Return q·k / √d of all places, −∞ where one may not look, [n, heads, T, T].

        Args:
            x: the tokens [n, T, width].
            turn: see `forward`.
            mask: see `forward`.
        """
        q, k = self._make_pair(x, turn)
        k = k.repeat_interleave(self.heads // self.kv_heads, 1)
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is None:
            mask = torch.ones_like(logits[:1, :1], dtype=torch.bool).tril()
        return logits.masked_fill(~mask, -math.inf)

    def _make_pair(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return queries and keys, [n, heads, T, d] and [n, kv_heads, T, d]."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.key(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        # before they are turned, as a turn keeps their lengths
        q, k = self.query_norm(q), self.key_norm(k)
        if turn is None:
            return q, k
        return turn_pairs(q, turn), turn_pairs(k, turn)


class FeedForward(nn.Module):
    """W₂ φ(W₁ x), or W₂ (silu(W₀ x) · W₁ x) for swiglu.

    Args:
        style: of the decoder.
    """

    def __init__(self, style: DecoderStyle) -> None:
        super().__init__()
        # modules, so that dropout finds its places and diagnostics their activations
        self.gate: nn.Module | None = None
        self.activation: nn.Module = nn.GELU()
        if style.activation == "relu2":
            self.activation = SquaredReLU()
        elif style.activation == "swiglu":
            self.activation = nn.SiLU()
            self.gate = nn.Linear(style.width, style.hidden, bias=style.bias)
        self.expand = nn.Linear(style.width, style.hidden, bias=style.bias)
        self.contract = nn.Linear(style.hidden, style.width, bias=style.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map each token of [n, T, width]."""
        hidden = self.expand(x)
        if self.gate is None:
            hidden = self.activation(hidden)
        else:
            hidden = self.activation(self.gate(x)) * hidden
        contracted: Tensor = self.contract(hidden)
        return contracted


class DecoderLayer(nn.Module):
    """h ← h + attention(norm(h)), then h ← h + feed_forward(norm(h)).

    Args:
        style: of the decoder.
    """

    def __init__(self, style: DecoderStyle) -> None:
        super().__init__()
        self.attention_norm, self.attention = style.make_norm(), CausalAttention(style)
        self.feed_forward_norm, self.feed_forward = style.make_norm(), FeedForward(style)

    def forward(self, h: Tensor, turn: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        """Map tokens [n, T, width] to tokens of the same shape.

        Args:
            h: the tokens.
            turn: rotary angles; None for none.
            mask: see `CausalAttention`.
        """
        h = h + self.attention(self.attention_norm(h), turn, mask)
        mapped: Tensor = self.feed_forward(self.feed_forward_norm(h))
        return h + mapped
