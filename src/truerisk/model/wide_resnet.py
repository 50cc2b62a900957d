"""The wide residual network, whose blocks normalize and activate before they convolve."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.building_blocks import (
    CONVOLUTION,
    LayerStyle,
    make_activation,
    make_normalization,
    misfit_error,
    name_layers,
)

STAGES = 3


class WideResNet(nn.Module):
    """Wide residual network WRN-``depth``-``widen`` for images and signals.

    A 3-wide convolution of ``width`` channels; three stages of n = (depth − 4) / 6 blocks with
    widen·width channels, doubled and the positions halved from stage to stage; normalization,
    activation, the mean over positions and a linear layer.

    Source: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, §2; without the dropout
    between convolutions, which ``regularizer=dropout`` puts after every activation.

    Args:
        input_shape: (channels, length) or (channels, height, width) of one sample.
        output_size: number of outputs.
        depth: number of weight layers, 6n + 4.
        widen: k, by which the stages are wider than those of He et al. 2016.
        width: channels of the stem.
        activation: before every convolution of a block.
        normalization: none, batch, layer or group; before every activation.
        groups: number of groups of group normalization.
        bias: whether layers have a bias; convolutions beside batch normalization have none.

    Raises:
        ConfigError: the samples are feature vectors; a size is not a whole number or does not fit,
            or a name is not known.

    >>> sum(p.numel() for p in WideResNet((3, 32, 32), 10, depth=16, widen=4).parameters())
    2748890
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        depth: int = 16,
        widen: int = 4,
        width: int = 16,
        activation: str = "relu",
        normalization: str = "batch",
        groups: int = 4,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(input_shape) not in (2, 3):
            raise misfit_error("wide_resnet", "signals or images", input_shape)
        check_int("model.width", width)
        check_int("model.widen", widen)
        if check_int("model.depth", depth, least=10) % 6 != 4:
            raise ConfigError(
                f"model.depth={depth} is none of 6n + 4, as three stages of n blocks have: "
                "take 10, 16, 22, 28, 34 or 40"
            )
        dims = len(input_shape) - 1
        style = LayerStyle(activation, normalization, groups, bias)
        # nothing behind it: the first block begins with a normalization of its own
        self.stem = convolve(dims, input_shape[0], width, style)
        blocks, inputs = [], width
        for stage in range(STAGES):
            outputs = width * widen * 2**stage
            for block in range((depth - 4) // 6):
                # the stem's positions are kept through the first stage
                stride = 2 if stage and not block else 1
                blocks.append(PreactivatedBlock(dims, inputs, outputs, style, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        # what blocks return has been added to, and not been activated since
        self.last = name_layers(
            normalization=make_normalization(normalization, inputs, dims, groups),
            activation=make_activation(activation),
        )
        self.output = nn.Linear(inputs, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        return self.output(self.last(self.blocks(self.stem(x))).flatten(2).mean(2))


class PreactivatedBlock(nn.Module):
    """x + F(x), where each of the two convolutions of F is normalized and activated before it.

    Where channels or positions change, the shortcut is a convolution of one position, of what the
    first of them convolves (He et al., "Identity Mappings in Deep Residual Networks", 2016).

    Args:
        dims: number of spatial dimensions, 1 or 2.
        inputs: channels of the input.
        outputs: channels of the output.
        style: of the model's layers.
        stride: step of the first convolution.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, style: LayerStyle, stride: int = 1
    ) -> None:
        super().__init__()
        self.before = name_layers(
            normalization=make_normalization(style.normalization, inputs, dims, style.groups),
            activation=make_activation(style.activation),
        )
        self.first = convolve(dims, inputs, outputs, style, stride=stride)
        self.second = name_layers(
            normalization=make_normalization(style.normalization, outputs, dims, style.groups),
            activation=make_activation(style.activation),
            conv=convolve(dims, outputs, outputs, style),
        )
        self.projection: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.projection = convolve(dims, inputs, outputs, style, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, …] to [n, outputs, …]."""
        active = self.before(x)
        # of what is activated, as the authors have it: x itself would skip the normalization
        shortcut = x if self.projection is None else self.projection(active)
        return shortcut + self.second(self.first(active))


def convolve(
    dims: int, inputs: int, outputs: int, style: LayerStyle, kernel: int = 3, stride: int = 1
) -> nn.Module:
    """Build a convolution that keeps the positions, or takes every ``stride``-th.

    Args:
        dims: number of spatial dimensions, 1 or 2.
        inputs: channels of the input.
        outputs: channels of the output.
        style: of the model's layers.
        kernel: its size along each dimension.
        stride: its step.
    """
    # no bias beside batch norm, though it comes before: the next one subtracts the mean again
    return CONVOLUTION[dims](
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=style.layer_bias
    )
