"""Recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.recurrent_cells import elman_state
from truerisk.model.building_blocks import (
    make_activation,
    misfit_error,
    sequence_shape,
    to_sequence,
)

READOUTS = ("last", "flatten", "mean", "every")


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
            With ``every`` samples are tokens, a one-hot code each, and it sees the state at each
            step, so that outputs are scores [n, steps, output_size].
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
        option = type(self).__name__.lower()
        steps, features = sequence_shape(option, input_shape)
        self.reads_tokens = readout == "every"
        if self.reads_tokens:
            _check_tokens(option, input_shape, bidirectional)
            features = output_size
        self.tokens = output_size
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
        states_read = steps if readout == "flatten" else 1
        self.output = nn.Linear((1 + bidirectional) * width * states_read, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size], or a row of them a step."""
        steps = self.encode_tokens(x) if self.reads_tokens else to_sequence(x)
        states, _ = self.recurrent(steps, self.zero_state(steps))
        return self.output(self.select_states(states))

    def encode_tokens(self, x: Tensor) -> Tensor:
        """Return one-hot codes [n, steps, output_size] of tokens [n, steps]."""
        if x.is_floating_point():
            raise ConfigError(
                "model.readout=every reads tokens, which are whole numbers, as data=copy_memory or "
                "data=text has them: take last, flatten or mean"
            )
        # by comparing, as torch's own looks at the numbers, which stacked models do not allow
        codes = x[..., None] == torch.arange(self.tokens, device=x.device)
        return codes.to(self.output.weight.dtype)

    def zero_state(self, steps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return zero states [layers·directions, n, width], a pair of them for an LSTM."""
        # made from the samples: under vmap they must be as batched as those are. Not `len`, which a
        # trace keeps as the number that it has seen
        layers = self.recurrent.num_layers * (1 + self.recurrent.bidirectional)
        zeros = steps.new_zeros(layers, steps.shape[0], self.recurrent.hidden_size)
        if isinstance(self.recurrent, nn.LSTM):
            return zeros, zeros
        return zeros

    def select_states(self, states: Tensor) -> Tensor:
        """Select what the readout sees of the states [n, steps, directions·width], as [n, d].

        With ``every`` it is all of them, as they are.
        """
        if self.readout == "every":
            return states
        if self.readout == "flatten":
            return states.flatten(1)
        if self.readout == "mean":
            return states.mean(1)
        # the second direction has read the whole sequence at its first step
        width = self.recurrent.hidden_size
        return torch.cat([states[:, -1, :width], states[:, 0, width:]], dim=1)


def _check_tokens(option: str, input_shape: Sequence[int], bidirectional: bool) -> None:
    """Refuse samples that are no sequences of tokens, and states that read what is to come."""
    if len(input_shape) != 1:
        raise misfit_error(
            option, "sequences of tokens with model.readout=every, as data=text", input_shape
        )
    if bidirectional:
        raise ConfigError(
            "model.readout=every scores what follows each token, and a second state would read it "
            "beforehand: set model.bidirectional=false"
        )


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
        # torch's own where it has one: it takes all steps in one call
        if residual or activation == "sigmoid":
            self.cell = partial(ElmanLayer, nonlinearity=activation, residual=residual)
        else:
            self.cell = partial(nn.RNN, nonlinearity=activation)
        # after the cell: the base class calls it
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


class ElmanLayer(nn.RNNBase):
    """hₜ = φ(W xₜ + b + U hₜ₋₁ + c), or hₜ₋₁ + φ(…) where it is residual.

    Parameters, their names and how they are drawn are those of ``torch.nn.RNN``; samples first.

    Args:
        sizes: features of a step, units of the state h, and the number of layers.
        nonlinearity: φ, by the name of a model's activation.
        residual: whether the state before is added to each.
        options: those of ``torch.nn.RNN``.

    >>> layer = ElmanLayer(2, 3, nonlinearity="sigmoid", residual=True, batch_first=True)
    >>> [tuple(t.shape) for t in layer(torch.zeros(5, 7, 2))]
    [(5, 7, 3), (1, 5, 3)]
    """

    def __init__(
        self, *sizes: Any, nonlinearity: str = "tanh", residual: bool = False, **options: Any
    ) -> None:
        # the base class wants a mode of torch's, and sizes the weights by it
        super().__init__("RNN_TANH", *sizes, **options)
        self.nonlinearity, self.residual = nonlinearity, residual
        self.activation = make_activation(nonlinearity)

    def forward(self, x: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the states of all steps.

        Args:
            x: samples [n, steps, features].
            start: the states before the first step [layers·directions, n, width]; None for zero.

        Returns:
            (states of the last layer [n, steps, directions·width], last states of all layers, of
            the shape of ``start``).
        """
        last: list[Tensor] = []
        if start is None:
            layers = self.num_layers * (1 + self.bidirectional)
            start = x.new_zeros(layers, len(x), self.hidden_size)
        for layer in range(self.num_layers):
            # between layers only, as in torch
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            directions = [self._run_direction(x, start[len(last)], f"_l{layer}")]
            last.append(directions[0][:, -1])
            if self.bidirectional:
                back = self._run_direction(x.flip(1), start[len(last)], f"_l{layer}_reverse")
                last.append(back[:, -1])
                directions.append(back.flip(1))  # in the order of the steps again
            x = torch.cat(directions, -1)
        return x, torch.stack(last)

    def _run_direction(self, x: Tensor, h: Tensor, suffix: str) -> Tensor:
        """Compute the states [n, steps, width] of one layer in one direction."""
        w, u = (getattr(self, f"weight_{kind}{suffix}") for kind in ("ih", "hh"))
        b, c = (getattr(self, f"bias_{kind}{suffix}", None) for kind in ("ih", "hh"))
        states = []
        # W x of all steps in one product: only U h has to wait for the state before
        for from_input in F.linear(x, w, b).unbind(1):
            before = h if self.residual else None
            h = elman_state(from_input, F.linear(h, u, c), self.activation, before)
            states.append(h)
        return torch.stack(states, 1)
