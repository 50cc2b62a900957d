"""A plain recurrent layer written out, for what torch's own does not have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from truerisk.core.recurrent_cells import elman_state
from truerisk.model.activation import activation


class Elman(nn.RNNBase):
    """hₜ = φ(W xₜ + b + U hₜ₋₁ + c), or hₜ₋₁ + φ(…) where it is residual.

    Parameters, their names and how they are drawn are those of ``torch.nn.RNN``; samples first.

    Args:
        sizes: features of a step, units of the state h, and the number of layers.
        nonlinearity: φ, by the name of a model's activation.
        residual: whether the state before is added to each.
        options: those of ``torch.nn.RNN``.

    >>> layer = Elman(2, 3, nonlinearity="sigmoid", residual=True, batch_first=True)
    >>> [tuple(t.shape) for t in layer(torch.zeros(5, 7, 2))]
    [(5, 7, 3), (1, 5, 3)]
    """

    def __init__(
        self, *sizes: Any, nonlinearity: str = "tanh", residual: bool = False, **options: Any
    ) -> None:
        super().__init__("RNN_TANH", *sizes, **options)
        self.nonlinearity, self.residual = nonlinearity, residual
        self.activation = activation(nonlinearity)

    def forward(self, x: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map samples [n, steps, features] to states [n, steps, directions·width], and the last."""
        last: list[Tensor] = []
        if start is None:
            layers = self.num_layers * (1 + self.bidirectional)
            start = x.new_zeros(layers, len(x), self.hidden_size)
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            sides = [self._side(x, start[len(last)], f"_l{layer}")]
            last.append(sides[0][:, -1])
            if self.bidirectional:
                back = self._side(x.flip(1), start[len(last)], f"_l{layer}_reverse")
                last.append(back[:, -1])
                sides.append(back.flip(1))
            x = torch.cat(sides, -1)
        return x, torch.stack(last)

    def _side(self, x: Tensor, h: Tensor, suffix: str) -> Tensor:
        """The states [n, steps, width] of one layer in one direction."""
        w, u = (getattr(self, f"weight_{kind}{suffix}") for kind in ("ih", "hh"))
        b, c = (getattr(self, f"bias_{kind}{suffix}", None) for kind in ("ih", "hh"))
        states = []
        for from_input in F.linear(x, w, b).unbind(1):
            before = h if self.residual else None
            h = elman_state(from_input, F.linear(h, u, c), self.activation, before)
            states.append(h)
        return torch.stack(states, 1)
