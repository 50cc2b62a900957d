"""What models are stacked from: layers by name, and the shapes of samples that they can read."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from truerisk.core.errors import ConfigError, suggest

KINDS = {
    1: "feature vectors (d,)",
    2: "signals (channels, length)",
    3: "images (channels, height, width)",
}
SEQUENTIAL = ("rnn", "lstm", "gru", "transformer")
FITTING_MODELS = {
    1: ("linear", "mlp", *SEQUENTIAL),
    2: ("linear", "mlp", "cnn1d", "resnet", "wide_resnet", *SEQUENTIAL),
    3: ("linear", "mlp", "cnn", "resnet", "wide_resnet", "vit", *SEQUENTIAL),
}


class MisfitError(ConfigError):
    """Data that a model cannot read; ``option`` is what the message calls the model."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


def misfit_error(model: str, takes: str, input_shape: Sequence[int]) -> MisfitError:
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
    return MisfitError(
        model,
        f"model={model} takes {takes}, but a sample of this data has shape {shape}{kind}; "
        f"use model={', '.join(fitting)} or {last}",
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


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """Build an activation module: one for each place of use, so that each can be found and edited.

    Raises:
        ConfigError: there is no activation of that name.

    >>> make_activation("relu")
    ReLU()
    """
    if name not in ACTIVATIONS:
        hint = suggest(str(name), ACTIVATIONS)
        raise ConfigError(f"model.activation={name} is not known; {hint}")
    return ACTIVATIONS[name]()


NORMALIZATIONS = ("none", "batch", "layer", "group")
# BatchNorm1d takes both [n, channels] and [n, channels, length]
BATCH_NORM = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def make_normalization(name: str, width: int, dims: int = 0, groups: int = 1) -> nn.Module | None:
    """Build a normalization of ``width`` channels over ``dims`` spatial dimensions.

    Each subtracts a mean, divides by a standard deviation and applies a learned scale and shift a
    channel. ``batch`` measures them a channel over the batch and all positions (Ioffe & Szegedy
    2015), ``layer`` a sample over all channels and positions (Ba, Kiros & Hinton 2016), ``group`` a
    sample over each of ``groups`` sets of channels (Wu & He 2018).

    Args:
        name: none, batch, layer or group.
        width: number of channels.
        dims: number of spatial dimensions.
        groups: number of groups of group normalization.

    Returns:
        The module; None for ``none``.

    Raises:
        ConfigError: there is no normalization of that name, or ``groups`` does not divide
            ``width``, or would leave one number to a group, whose normalized value is always zero.

    >>> make_normalization("group", width=8, dims=1, groups=4).num_groups
    4
    """
    if name not in NORMALIZATIONS:
        hint = suggest(str(name), NORMALIZATIONS)
        raise ConfigError(f"model.normalization={name} is not known; {hint}")
    if name == "batch":
        return BATCH_NORM[dims](width)
    if name == "layer":
        # over channels and positions both, which `nn.LayerNorm` could do for one length only
        return nn.GroupNorm(1, width) if dims else nn.LayerNorm(width)
    if name == "group":
        return _make_group_norm(groups, width, dims)
    return None


def _make_group_norm(groups: int, width: int, dims: int) -> nn.GroupNorm:
    """Build a group normalization, if its groups fit the width; see `make_normalization`."""
    # a group of one number has no deviation to divide by
    usable = [g for g in range(1, width + 1) if width % g == 0 and (dims or g < width)]
    if groups not in usable:
        options = ", ".join(map(str, usable)) or "none"
        raise ConfigError(
            f"model.groups={groups} does not fit a layer of width {width}; possible: {options}"
        )
    return nn.GroupNorm(groups, width)


CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d}


class LayerStyle(NamedTuple):
    """What the layers of one model have in common.

    Attributes:
        activation: an activation's name.
        normalization: none, batch, layer or group.
        groups: number of groups of group normalization.
        bias: whether layers have a bias.
    """

    activation: str = "relu"
    normalization: str = "none"
    groups: int = 1
    bias: bool = True

    @property
    def layer_bias(self) -> bool:
        """Whether weight layers have a bias: not before batch norm, which subtracts it again."""
        return self.bias and self.normalization != "batch"


def linear_block(inputs: int, outputs: int, style: LayerStyle) -> nn.Sequential:
    """Build linear layer, normalization, activation: [n, inputs] → [n, outputs].

    Args:
        inputs: features of a sample.
        outputs: units.
        style: of the model's layers.

    Returns:
        A Sequential with members ``linear``, ``normalization`` (if any) and ``activation``.
    """
    layer = nn.Linear(inputs, outputs, bias=style.layer_bias)
    norm = make_normalization(style.normalization, outputs, groups=style.groups)
    last = make_activation(style.activation)
    return name_layers(linear=layer, normalization=norm, activation=last)


def conv_block(
    dims: int,
    inputs: int,
    outputs: int,
    style: LayerStyle,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    activate: bool = True,
) -> nn.Sequential:
    """Build convolution, normalization, activation: [n, inputs, …] → [n, outputs, …].

    Args:
        dims: number of spatial dimensions, 1 or 2.
        inputs: channels of a sample.
        outputs: channels after it.
        style: of the model's layers.
        kernel: size of the kernel along each dimension.
        stride: step of the kernel.
        padding: zeros added at each end.
        activate: whether an activation follows.

    Returns:
        A Sequential with members ``conv``, ``normalization`` and ``activation``, the last two if
        there is one.
    """
    layer = CONVOLUTION[dims](
        inputs, outputs, kernel, stride=stride, padding=padding, bias=style.layer_bias
    )
    norm = make_normalization(style.normalization, outputs, dims, style.groups)
    last = None
    if activate:
        last = make_activation(style.activation)
    return name_layers(conv=layer, normalization=norm, activation=last)


def name_layers(**modules: nn.Module | None) -> nn.Sequential:
    """Build a Sequential with named members, those that are None left out."""
    # names, since positions in a checkpoint would shift with every member that is left out
    return nn.Sequential(OrderedDict((k, m) for k, m in modules.items() if m is not None))
