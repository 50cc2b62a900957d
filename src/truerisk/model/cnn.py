"""The 2-D convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.block import Style, conv_block
from truerisk.model.shape import misfit

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
        positions = halved(size, check_int("model.depth", depth))
        if pooling not in POOLINGS:
            raise ConfigError(f"model.pooling={pooling} is not known; {suggest(pooling, POOLINGS)}")
        style = Style(activation, normalization, groups, bias)
        widths = [channels] + [width * 2**stage for stage in range(depth)]
        self.stages = nn.Sequential()
        for inputs, outputs in pairwise(widths):
            stage = conv_block(2, inputs, outputs, style)
            stage.add_module("pooling", POOLINGS[pooling](2))
            self.stages.append(stage)
        self.output = nn.Linear(widths[-1] * positions, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, *input_shape] to outputs [n, output_size]."""
        return self.output(self.stages(x.reshape(-1, *self.image_shape)).flatten(1))


def image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width); samples of two dimensions are images of one channel.

    >>> image_shape((8, 8))
    (1, 8, 8)
    """
    match tuple(input_shape):
        case (c, h, w):
            return c, h, w
        case (h, w) if min(h, w) > 1:
            return 1, h, w
    raise misfit("cnn", "images (channels, height, width)", input_shape)


def halved(size: Sequence[int], times: int) -> int:
    """Positions left when height and width are halved, rounding down, ``times`` times.

    >>> halved((28, 28), 2)
    49
    """
    height, width = (side // 2**times for side in size)
    if not height * width:
        raise ConfigError(
            f"model.depth={times} halves images of {size[0]} x {size[1]} to nothing; "
            f"use at most model.depth={min(size).bit_length() - 1}"
        )
    return height * width
