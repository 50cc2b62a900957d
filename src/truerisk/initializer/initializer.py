"""The initializer that draws every weight matrix from one scheme."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.initializer.layer import Matrix, biases, matrices

Scheme = Callable[[Tensor], object]
"""Fills a matrix [outputs, inputs, *kernel] in place, as the functions of torch.nn.init do."""


class Initializer:
    """Sets W ← gain · W₀, with W₀ drawn by a scheme, in every weight matrix of a model.

    Weight matrices are those of linear, convolutional, recurrent and attention layers, each gate's,
    projection's and group's by itself; norm layers, embeddings and a model's own raw parameters
    keep what they have. Draws come from torch's global generator.

    Args:
        weight: the scheme; None keeps W₀ as the model was built.
        bias: the value of every bias; None keeps them.
        gain: multiplies every weight matrix.
        recurrent: another scheme for the hidden-to-hidden matrices.

    Raises:
        ConfigError: ``bias`` or ``gain`` is not a number; on calling: the scheme refuses its
            numbers, or ``recurrent`` is given and the model has no hidden-to-hidden matrix.

    >>> layer = nn.Linear(3, 1)
    >>> Initializer(torch.nn.init.ones_, bias=0.5, gain=2.0)(layer)
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[2.0, 2.0, 2.0]], [0.5])
    """

    needs_data = False

    def __init__(
        self,
        weight: Scheme | None = None,
        bias: float | None = None,
        gain: float = 1.0,
        recurrent: Scheme | None = None,
    ) -> None:
        self.weight, self.recurrent = weight, recurrent
        self.bias = None if bias is None else check_float("initializer.bias", bias, -math.inf)
        self.gain = check_float("initializer.gain", gain, -math.inf)

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor | None = None) -> None:
        """Set the model's weights in place; ``x`` is not used."""
        found = list(matrices(model))
        if self.recurrent is not None and not any(m.recurrent for m in found):
            raise ConfigError(
                "initializer.recurrent sets hidden-to-hidden weights, and this model has none; "
                "use model=rnn, lstm or gru, or another initializer"
            )
        for matrix in found:
            self.fill(matrix)
        if self.bias is not None:
            for bias in biases(model):
                bias.fill_(self.bias)

    def fill(self, matrix: Matrix) -> None:
        """Set one weight matrix; schemes get it contiguous, as some of torch's require."""
        scheme = self.recurrent if matrix.recurrent and self.recurrent else self.weight
        draw = matrix.weight.clone(memory_format=torch.contiguous_format)
        try:
            if scheme is not None:
                scheme(draw)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"initializer.weight does not work: {error}") from error
        matrix.weight.copy_(draw * self.gain)
