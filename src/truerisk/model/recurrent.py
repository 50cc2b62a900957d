"""Recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.elman import Elman
from truerisk.model.shape import sequence, sequence_shape

READOUTS = ("last", "flatten", "mean")


class Recurrent(nn.Module):
    """A recurrent layer over the steps of a sequence, and a linear readout of its states.

    Samples are read as sequences: a signal (c, L) as L steps of c features, an image (c, h, w) as
    its h rows, a feature vector (d,) as d steps of one feature.

    Args:
        input_shape: shape of one sample.
        output_size: number of outputs.
        width: units of the state h.
        depth: number of layers, each reading the states of the one before.
        bidirectional: whether a second state reads the sequence backwards.
        readout: what the linear layer sees: ``last``, the state after the whole sequence has been
            read (in each direction), ``flatten``, the states at all steps, or ``mean``, their mean.
        bias: whether layers have a bias.
        dropout: share of a layer's states that the next one does not see while training.

    Raises:
        ConfigError: a size is not a whole number, or a name is not known.
    """

    cell: Callable[..., nn.RNNBase]

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 6,
        depth: int = 1,
        bidirectional: bool = True,
        readout: str = "flatten",
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise ConfigError(f"model.readout={readout} is not known; {suggest(readout, READOUTS)}")
        steps, features = sequence_shape(type(self).__name__.lower(), input_shape)
        self.readout = readout
        self.recurrent = self.cell(
            features,
            check_int("model.width", width),
            check_int("model.depth", depth),
            bias=bias,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=check_float("model.dropout", dropout, high=1.0),
        )
        states = (1 + bidirectional) * width * (steps if readout == "flatten" else 1)
        self.output = nn.Linear(states, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        steps = sequence(x)
        states, _ = self.recurrent(steps, self.start(steps))
        return self.output(self.read(states))

    def start(self, steps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Zero states made from the samples: under vmap they must be as batched as those are."""
        layers = self.recurrent.num_layers * (1 + self.recurrent.bidirectional)
        zeros = steps.new_zeros(layers, len(steps), self.recurrent.hidden_size)
        return (zeros, zeros) if isinstance(self.recurrent, nn.LSTM) else zeros

    def read(self, states: Tensor) -> Tensor:
        """What the readout sees of the states [n, steps, directions·width]."""
        if self.readout == "flatten":
            return states.flatten(1)
        if self.readout == "mean":
            return states.mean(1)
        width = self.recurrent.hidden_size
        return torch.cat([states[:, -1, :width], states[:, 0, width:]], dim=1)


class RNN(Recurrent):
    """Elman network: hₜ = φ(W xₜ + U hₜ₋₁ + b) (Elman 1990); see `Recurrent`.

    Args:
        input_shape: shape of one sample.
        output_size: number of outputs.
        activation: φ: tanh, relu or sigmoid.
        residual: whether hₜ₋₁ is added to that, so that a gradient finds a way around U, as in
            residual networks (He, Zhang, Ren & Sun 2016, Identity Mappings, §2).
        others: those of `Recurrent`.

    >>> RNN((1, 40), 10, activation="relu").recurrent
    RNN(1, 6, batch_first=True, bidirectional=True)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 6,
        depth: int = 1,
        bidirectional: bool = True,
        readout: str = "flatten",
        bias: bool = True,
        dropout: float = 0.0,
        activation: str = "tanh",
        residual: bool = False,
    ) -> None:
        if activation not in ("tanh", "relu", "sigmoid"):
            raise ConfigError(
                f"model.activation={activation} does not fit model=rnn: tanh, relu or sigmoid"
            )
        if residual or activation == "sigmoid":
            self.cell = partial(Elman, nonlinearity=activation, residual=residual)
        else:
            self.cell = partial(nn.RNN, nonlinearity=activation)
        sizes = (width, depth, bidirectional, readout, bias, dropout)
        super().__init__(input_shape, output_size, *sizes)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, forget gates by Gers et al. 2000).

    See `Recurrent`.

    >>> LSTM((1, 40), 10)(torch.zeros(5, 1, 40)).shape
    torch.Size([5, 10])
    """

    cell = nn.LSTM


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014); see `Recurrent`.

    The defaults are the network of Greydanus & Kobak (2020): six units in each direction, all
    states flattened into the readout.

    >>> sum(p.numel() for p in GRU((1, 40), 10).parameters())
    5134
    """

    cell = nn.GRU
