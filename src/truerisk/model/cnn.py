"""Convolutional networks, for images and for signals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.building_blocks import LayerStyle, conv_block
from truerisk.model.shape import misfit_error

POOLINGS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class CNN(nn.Module):
    """Small convolutional network for images (LeCun et al. 1998, with today's layers).

    Each of ``depth`` stages is a 3 x 3 convolution, normalization, activation and a 2 x 2 pooling
    that halves height and width; the first has ``width`` channels and each next one twice as many.
    A linear layer reads all positions of the last.

    Args:
        input_shape: (channels, height, width) of one image, or (height, width).
        output_size: number of outputs.
        width: channels of the first convolution.
        depth: number of stages.
        pooling: max or average.
        activation: after every convolution.
        normalization: none, batch, layer or group; before the activation.
        groups: number of groups of group normalization.
        bias: whether layers have a bias; left out before batch normalization.

    Raises:
        ConfigError: the samples are not images, or too small to be halved ``depth`` times; a size
            is not a whole number, or a name is not known.

    >>> import torch
    >>> CNN((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 16,
        depth: int = 2,
        pooling: str = "max",
        activation: str = "relu",
        normalization: str = "none",
        groups: int = 4,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape(input_shape)
        channels, *size = self.image_shape
        check_int("model.width", width)
        positions = count_positions(size, check_int("model.depth", depth))
        if pooling not in POOLINGS:
            raise ConfigError(f"model.pooling={pooling} is not known; {suggest(pooling, POOLINGS)}")
        style = LayerStyle(activation, normalization, groups, bias)
        widths = [channels] + [width * 2**stage for stage in range(depth)]
        self.stages = nn.Sequential()
        for inputs, outputs in pairwise(widths):
            stage = conv_block(2, inputs, outputs, style)
            stage.add_module("pooling", POOLINGS[pooling](2))
            self.stages.append(stage)
        self.output = nn.Linear(widths[-1] * positions, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, *input_shape] to outputs [n, output_size]."""
        # a sample of two dimensions gets its one channel here
        return self.output(self.stages(x.reshape(-1, *self.image_shape)).flatten(1))


def image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width); samples of two dimensions are images of one channel.

    >>> image_shape((8, 8))
    (1, 8, 8)
    """
    match tuple(input_shape):
        case (c, h, w):
            return c, h, w
        case (h, w) if min(h, w) > 1:  # one row would be a signal
            return 1, h, w
    raise misfit_error("cnn", "images (channels, height, width)", input_shape)


def count_positions(size: Sequence[int], times: int) -> int:
    """Count the positions left when height and width are halved, rounding down, several times.

    Args:
        size: (height, width).
        times: how often.

    Returns:
        Their number.

    Raises:
        ConfigError: nothing is left.

    >>> count_positions((28, 28), 2)
    49
    """
    height, width = (side // 2**times for side in size)
    if not height * width:
        # a side of b bits can be halved b − 1 times
        raise ConfigError(
            f"model.depth={times} halves images of {size[0]} x {size[1]} to nothing; "
            f"use at most model.depth={min(size).bit_length() - 1}"
        )
    return height * width


class CNN1d(nn.Module):
    """1-D convolutional network: strided convolutions, then a linear layer on all positions.

    The defaults are the network of Greydanus & Kobak (2020): three convolutions of 25 channels with
    kernels 5, 3, 3, stride 2 and padding 1, which take a length of 40 to 19, 10 and 5.

    Args:
        input_shape: (channels, length) of one sample.
        output_size: number of outputs.
        width: channels of every convolution.
        kernels: kernel size of each convolution; as many convolutions as there are sizes.
        stride: step of every convolution.
        padding: zeros added at both ends before every convolution.
        activation: after every convolution.
        normalization: none, batch, layer or group; before the activation.
        groups: number of groups of group normalization.
        bias: whether layers have a bias; left out before batch normalization.

    Raises:
        ConfigError: the samples are not signals, or too short for the kernels; a size is not a
            whole number, or a name is not known.

    >>> sum(p.numel() for p in CNN1d((1, 40), 10).parameters())
    5210
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 25,
        kernels: Sequence[int] = (5, 3, 3),
        stride: int = 2,
        padding: int = 1,
        activation: str = "relu",
        normalization: str = "none",
        groups: int = 5,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(input_shape) != 2:
            raise misfit_error("cnn1d", "signals (channels, length)", input_shape)
        channels, length = input_shape
        sizes = check_kernels(kernels)
        check_int("model.width", width)
        check_int("model.stride", stride)
        check_int("model.padding", padding, least=0)
        positions = final_length(length, sizes, stride, padding)
        style = LayerStyle(activation, normalization, groups, bias)
        inputs = [channels] + [width] * (len(sizes) - 1)
        self.convolutions = nn.Sequential(
            *(
                conv_block(1, c, width, style, k, stride, padding)
                for c, k in zip(inputs, sizes, strict=True)
            )
        )
        self.output = nn.Linear(width * positions, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map signals [n, channels, length] to outputs [n, output_size]."""
        return self.output(self.convolutions(x).flatten(1))


def check_kernels(kernels: Sequence[int]) -> list[int]:
    """Return the kernel sizes as a list.

    Raises:
        ConfigError: they are no list of whole numbers.
    """
    # not `isinstance(kernels, list)`: what Hydra passes is a list of its own kind
    if isinstance(kernels, int | float | str) or not len(kernels):
        raise ConfigError(f"model.kernels must be a list such as [5,3,3], not {kernels!r}")
    return [check_int("model.kernels", k) for k in kernels]


def final_length(length: int, kernels: Sequence[int], stride: int, padding: int) -> int:
    """Count positions left by convolutions: L ← ⌊(L + 2·padding - kernel) / stride⌋ + 1 for each.

    Args:
        length: positions of a signal.
        kernels: kernel size of each convolution.
        stride: step of every convolution.
        padding: zeros added at both ends before every convolution.

    Returns:
        The length of what the last one gives.

    Raises:
        ConfigError: a kernel is longer than what the ones before it left.

    >>> final_length(40, [5, 3, 3], stride=2, padding=1)
    5
    """
    positions = length
    for kernel in kernels:
        if positions + 2 * padding < kernel:
            raise ConfigError(
                f"model.kernels={list(kernels)} is too much for signals of length {length}: "
                "take fewer or smaller kernels, a smaller model.stride or more model.padding"
            )
        positions = (positions + 2 * padding - kernel) // stride + 1
    return positions
