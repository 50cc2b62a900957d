"""Which models take which samples, and how a sample is read as a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from truerisk.core.errors import ConfigError

KINDS = {
    1: "feature vectors (d,)",
    2: "signals (channels, length)",
    3: "images (channels, height, width)",
}
SEQUENTIAL = ("rnn", "lstm", "gru", "transformer")
FITTING_MODELS = {
    1: ("linear", "mlp", *SEQUENTIAL),
    2: ("linear", "mlp", "cnn1d", "resnet", *SEQUENTIAL),
    3: ("linear", "mlp", "cnn", "resnet", *SEQUENTIAL),
}


def misfit_error(model: str, takes: str, input_shape: Sequence[int]) -> ConfigError:
    """Make the error for a model that cannot read the data, with the options that can.

    Args:
        model: the model's option.
        takes: what it reads, in words.
        input_shape: shape of one sample.

    Returns:
        The error, to be raised.

    >>> str(misfit_error("cnn", "images", (13,))).split("; ")[1]
    'use model=linear, mlp, rnn, lstm, gru or transformer'
    """
    shape = tuple(input_shape)
    # samples of no or more than three dimensions can be flattened only
    *fitting, last = FITTING_MODELS.get(len(shape), FITTING_MODELS[1][:2])
    kind = f", that is {KINDS[len(shape)]}" if len(shape) in KINDS else ""
    return ConfigError(
        f"model={model} takes {takes}, but a sample of this data has shape {shape}{kind}; "
        f"use model={', '.join(fitting)} or {last}"
    )


def count_features(input_shape: Sequence[int]) -> int:
    """Count the numbers that one sample holds.

    >>> count_features((3, 8, 8))
    192
    """
    return math.prod(input_shape)


def sequence_shape(model: str, input_shape: Sequence[int]) -> tuple[int, int]:
    """Return (steps, features a step) of a sample read as a sequence.

    A signal (c, L) has L steps of c features, an image (c, h, w) has h steps, its rows, of c·w
    features, and a feature vector (d,) has d steps of one feature.

    Args:
        model: the model's option, for the message.
        input_shape: shape of one sample.

    Raises:
        ConfigError: the sample has no or more than three dimensions.

    >>> [sequence_shape("gru", shape) for shape in ((1, 40), (3, 8, 6), (5,))]
    [(40, 1), (8, 18), (5, 1)]
    """
    match tuple(input_shape):
        case (d,):
            return d, 1
        case (c, length):
            return length, c
        case (c, h, w):
            return h, c * w
    raise misfit_error(model, "feature vectors, signals or images", input_shape)


def to_sequence(x: Tensor) -> Tensor:
    """Read samples [n, *input_shape] as sequences [n, steps, features]; see `sequence_shape`."""
    if x.ndim == 2:
        return x.unsqueeze(-1)
    if x.ndim == 4:
        return x.movedim(-2, 1).flatten(2)
    return x.transpose(1, 2)
