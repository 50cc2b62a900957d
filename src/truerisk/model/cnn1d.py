"""The 1-D convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.block import Style, conv_block
from truerisk.model.shape import misfit


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
            raise misfit("cnn1d", "signals (channels, length)", input_shape)
        channels, length = input_shape
        sizes = kernel_sizes(kernels)
        check_int("model.width", width)
        check_int("model.stride", stride)
        check_int("model.padding", padding, least=0)
        positions = final_length(length, sizes, stride, padding)
        style = Style(activation, normalization, groups, bias)
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


def kernel_sizes(kernels: Sequence[int]) -> list[int]:
    """The list of kernel sizes, checked."""
    if isinstance(kernels, int | float | str) or not len(kernels):
        raise ConfigError(f"model.kernels must be a list such as [5,3,3], not {kernels!r}")
    return [check_int("model.kernels", k) for k in kernels]


def final_length(length: int, kernels: Sequence[int], stride: int, padding: int) -> int:
    """Positions left after convolutions: L ← ⌊(L + 2·padding - kernel) / stride⌋ + 1 for each.

    Raises:
        ConfigError: a kernel is longer than what the ones before it left.

    >>> final_length(40, [5, 3, 3], stride=2, padding=1)
    5
    """
    left = length
    for kernel in kernels:
        if left + 2 * padding < kernel:
            raise ConfigError(
                f"model.kernels={list(kernels)} is too much for signals of length {length}: "
                "take fewer or smaller kernels, a smaller model.stride or more model.padding"
            )
        left = (left + 2 * padding - kernel) // stride + 1
    return left
