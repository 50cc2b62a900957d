"""Convolutional networks: plain ones for images and signals, and the residual network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.building_blocks import LayerStyle, conv_block, make_activation, misfit_error

POOLINGS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
SHORTCUTS = ("zeros", "projection")


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
        self.image_shape = image_shape("cnn", input_shape)
        channels, *size = self.image_shape
        check_int("model.width", width)
        positions = count_positions(size, check_int("model.depth", depth))
        if pooling not in POOLINGS:
            raise ConfigError(f"model.pooling={pooling} is not known; {suggest(pooling, POOLINGS)}")
        style = LayerStyle(activation, normalization, groups, bias)
        # twice the channels for a quarter of the positions: stages cost about the same
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


def image_shape(model: str, input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width); samples of two dimensions are images of one channel.

    Args:
        model: the model's option, for the message.
        input_shape: shape of one sample.

    Raises:
        ConfigError: it is that of no image.

    >>> image_shape("cnn", (8, 8))
    (1, 8, 8)
    """
    match tuple(input_shape):
        case (c, h, w):
            return c, h, w
        case (h, w) if min(h, w) > 1:  # one row would be a signal
            return 1, h, w
    raise misfit_error(model, "images (channels, height, width)", input_shape)


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


class ResNet(nn.Module):
    """Small residual network for signals and images (He et al. 2016, sections 3.3 and 4.2).

    A 3-wide convolution, then ``stages`` stages of ``depth`` blocks, the mean over positions and a
    linear layer. Every stage but the first halves the positions and doubles the channels. Shortcuts
    of ``zeros`` have no parameters (option A of the paper), so the plain network has the same ones.

    ResNet-20 for CIFAR is ``depth=3``; ResNet-18 in its form for small images is ``width=64
    stages=4 depth=2 shortcut=projection``.

    Args:
        input_shape: (channels, length) or (channels, height, width) of one sample; convolutions are
            1-D or 2-D accordingly.
        output_size: number of outputs.
        width: channels of the first stage.
        stages: number of stages.
        depth: blocks a stage; the network has 2·stages·depth + 2 weight layers.
        residual: whether blocks add their input to their output; false: the plain network.
        activation: after every convolution.
        normalization: none, batch, layer or group; after every convolution.
        groups: number of groups of group normalization.
        bias: whether layers have a bias; left out before batch normalization.
        shortcut: how it reaches more channels: ``zeros`` fills them with zeros, ``projection`` is a
            convolution of one position, normalized (option B).

    Raises:
        ConfigError: the samples are feature vectors, or have a single position before the last
            stage halves it; a size is not a whole number, or a name is not known.

    >>> plain, residual = (ResNet((1, 40), 10, residual=r) for r in (False, True))
    >>> sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in residual.parameters())
    True
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 16,
        stages: int = 3,
        depth: int = 1,
        residual: bool = True,
        activation: str = "relu",
        normalization: str = "batch",
        groups: int = 4,
        bias: bool = True,
        shortcut: str = "zeros",
    ) -> None:
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise ConfigError(
                f"model.shortcut={shortcut} is not known; {suggest(str(shortcut), SHORTCUTS)}"
            )
        if len(input_shape) not in (2, 3):
            raise misfit_error("resnet", "signals or images", input_shape)
        dims = len(input_shape) - 1
        style = LayerStyle(activation, normalization, groups, bias)
        check_int("model.width", width)
        check_int("model.depth", depth)
        check_stages(stages, input_shape[1:])
        widths = [width * 2**s for s in range(stages) for _ in range(depth)]
        self.stem = conv_block(dims, input_shape[0], width, style)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(dims, inputs, outputs, style, residual, shortcut)
                for inputs, outputs in zip([width, *widths[:-1]], widths, strict=True)
            )
        )
        self.output = nn.Linear(widths[-1], output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        return self.output(self.blocks(self.stem(x)).flatten(2).mean(2))


def check_stages(stages: int, size: Sequence[int]) -> None:
    """Refuse stages that would double the channels where no position is left to halve.

    Args:
        stages: number of stages; each but the first takes a side L to ⌈L/2⌉.
        size: (length,) or (height, width).

    Raises:
        ConfigError: it is no whole number, or more than ⌈log₂ of the longest side⌉ + 1.

    >>> check_stages(4, (3, 8))
    """
    # ⌈log₂ L⌉ in whole numbers
    most = (max(size) - 1).bit_length() + 1
    if check_int("model.stages", stages) > most:
        where = f"images of {size[0]} x {size[1]}" if len(size) == 2 else f"length {size[0]}"
        raise ConfigError(
            f"model.stages={stages}: every stage but the first halves the positions, and at "
            f"{where} a single one is left at stage {most}: use at most model.stages={most}"
        )


class ResidualBlock(nn.Module):
    """φ(shortcut(x) + F(x)) with two convolutions F; φ(F(x)) when not ``residual``.

    A block with more outputs than inputs takes every other position: x [n, inputs, L] becomes
    [n, outputs, ⌈L/2⌉]. Its shortcut takes every other position of x, and fills the new channels
    with zeros or is a convolution of one position.

    Args:
        dims: number of spatial dimensions, 1 or 2.
        inputs: channels of the input.
        outputs: channels of the output.
        style: of the model's layers.
        residual: whether there is a shortcut.
        shortcut: zeros or projection.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        style: LayerStyle,
        residual: bool = True,
        shortcut: str = "zeros",
    ) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.new_channels = outputs - inputs
        self.residual = residual
        self.first = conv_block(dims, inputs, outputs, style, stride=self.stride)
        # the activation comes after the sum
        self.second = conv_block(dims, outputs, outputs, style, activate=False)
        self.activation = make_activation(style.activation)
        self.projection: nn.Module | None = None
        # last of all, as what a seed draws for the other layers must stay what it is
        if residual and shortcut == "projection" and inputs != outputs:
            shape = {"kernel": 1, "stride": self.stride, "padding": 0}
            self.projection = conv_block(dims, inputs, outputs, style, **shape, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, …] to [n, outputs, …]."""
        h = self.second(self.first(x))
        if self.residual:
            h = self.apply_shortcut(x) + h
        return self.activation(h)

    def apply_shortcut(self, x: Tensor) -> Tensor:
        """Bring the block's input to the shape of its output."""
        if self.projection is not None:
            return self.projection(x)
        if self.stride == 1:
            return x
        sampled = x[..., ::2] if x.ndim == 3 else x[..., ::2, ::2]
        # torch counts pads from the last dimension: none along positions, then the new channels
        return functional.pad(sampled, (0, 0) * (x.ndim - 2) + (0, self.new_channels))
