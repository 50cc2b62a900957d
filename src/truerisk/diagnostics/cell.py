"""One step of a recurrent layer, written out so that it can be differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from truerisk.core.recurrent_cells import elman_state, lstm_state

GATES = {"RNN": "", "LSTM": "ifgo", "GRU": "rzn"}
"""The letters of a layer's gates, in the order of its weights."""
STEEPEST = {"tanh": 1.0, "relu": 1.0, "sigmoid": 0.25}
"""max φ′ of a plain layer's activation."""


class Cell(NamedTuple):
    """One direction of one layer: the weights, in torch's layout, and which kind it is.

    The state s is h, [n, width]; for an LSTM h and c side by side, [n, 2·width].
    """

    kind: str
    """RNN, LSTM or GRU"""
    activation: str
    """tanh, relu or sigmoid, of an RNN"""
    residual: bool
    """whether an RNN adds the state before"""
    weight: Tensor
    """of the inputs, [gates·width, features]"""
    recurrent: Tensor
    """of the state, [gates·width, width]"""
    biases: tuple[Tensor, Tensor]
    """beside either, [gates·width]"""

    @property
    def width(self) -> int:
        """Units of the state."""
        return self.recurrent.shape[1]

    @property
    def start(self) -> Tensor:
        """The zero state."""
        return self.recurrent.new_zeros(self.width * (2 if self.kind == "LSTM" else 1))

    def step(self, s: Tensor, x: Tensor) -> Tensor:
        """The state after an input."""
        h, from_input = s[..., : self.width], x @ self.weight.T + self.biases[0]
        from_state = h @ self.recurrent.T + self.biases[1]
        if self.kind == "RNN":
            activation = getattr(torch, self.activation)
            return elman_state(from_input, from_state, activation, s if self.residual else None)
        if self.kind == "LSTM":
            return torch.cat(lstm_state(from_input + from_state, s[..., self.width :]), -1)
        # not `gru_state`: its one sigmoid for both gates rounds otherwise in the last place
        (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
        z, new = (xz + hz).sigmoid(), torch.tanh(xn + (xr + hr).sigmoid() * hn)
        return (1 - z) * new + z * h

    def states(self, x: Tensor) -> Tensor:
        """The state after each input of sequences x [n, T, features]: [T, n, |s|]."""
        s, found = self.start.expand(len(x), -1), []
        for seen in x.unbind(1):
            s = self.step(s, seen)
            found.append(s)
        return torch.stack(found)

    def jacobians(self, x: Tensor) -> Tensor:
        """∂s_t/∂s_{t−1} for t = 1, …, T: [T, n, |s|, |s|]."""
        states = self.states(x)
        before = torch.cat([self.start.expand(1, len(x), -1), states[:-1]])
        each = vmap(vmap(jacrev(self.step)))
        return each(before, x.transpose(0, 1))


def cells(layer: nn.RNNBase, x: Tensor) -> Iterator[tuple[str, Cell, Tensor]]:
    """Every layer and direction inside a module, with a label, and what it reads, in its order."""
    for depth in range(layer.num_layers):
        outputs = []
        for reverse in range(1 + layer.bidirectional):
            suffix = f"_l{depth}{'_reverse' if reverse else ''}"
            label = f".{depth}" * (layer.num_layers > 1) + ".reverse" * reverse
            cell = _cell(layer, suffix)
            read = x.flip(1) if reverse else x
            yield label, cell, read
            h = cell.states(read)[..., : cell.width].transpose(0, 1)
            outputs.append(h.flip(1) if reverse else h)
        x = torch.cat(outputs, -1)


def _cell(layer: nn.RNNBase, suffix: str) -> Cell:
    weight, recurrent = (getattr(layer, f"weight_{kind}{suffix}").detach() for kind in ("ih", "hh"))
    zero = recurrent.new_zeros(len(recurrent))
    names = (f"bias_ih{suffix}", f"bias_hh{suffix}")
    biases = [getattr(layer, name).detach() if layer.bias else zero for name in names]
    kind = layer.mode.partition("_")[0]
    activation, residual = getattr(layer, "nonlinearity", ""), getattr(layer, "residual", False)
    return Cell(kind, activation, residual, weight, recurrent, (biases[0], biases[1]))
