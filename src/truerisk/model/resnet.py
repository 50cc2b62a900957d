"""The residual network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from truerisk.core.checks import check_int
from truerisk.model.building_blocks import LayerStyle, conv_block, make_activation
from truerisk.model.shape import misfit_error


class ResNet(nn.Module):
    """Small residual network for signals and images (He et al. 2016, sections 3.3 and 4.2).

    A 3-wide convolution, then ``stages`` stages of ``depth`` blocks, the mean over positions and a
    linear layer. Every stage but the first halves the positions and doubles the channels. Shortcuts
    have no parameters (option A of the paper), so the plain network has the same parameters.

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

    Raises:
        ConfigError: the samples are feature vectors; a size is not a whole number, or a name is not
            known.

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
    ) -> None:
        super().__init__()
        if len(input_shape) not in (2, 3):
            raise misfit_error("resnet", "signals or images", input_shape)
        dims = len(input_shape) - 1
        style = LayerStyle(activation, normalization, groups, bias)
        check_int("model.width", width)
        check_int("model.depth", depth)
        widths = [
            width * 2**s for s in range(check_int("model.stages", stages)) for _ in range(depth)
        ]
        self.stem = conv_block(dims, input_shape[0], width, style)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(dims, inputs, outputs, style, residual)
                for inputs, outputs in zip([width, *widths[:-1]], widths, strict=True)
            )
        )
        self.output = nn.Linear(widths[-1], output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        return self.output(self.blocks(self.stem(x)).flatten(2).mean(2))


class ResidualBlock(nn.Module):
    """φ(shortcut(x) + F(x)) with two convolutions F; φ(F(x)) when not ``residual``.

    A block with more outputs than inputs takes every other position: x [n, inputs, L] becomes
    [n, outputs, ⌈L/2⌉], and its shortcut takes every other position of x and fills the new channels
    with zeros.

    Args:
        dims: number of spatial dimensions, 1 or 2.
        inputs: channels of the input.
        outputs: channels of the output.
        style: of the model's layers.
        residual: whether there is a shortcut.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, style: LayerStyle, residual: bool = True
    ) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.new_channels = outputs - inputs
        self.residual = residual
        self.first = conv_block(dims, inputs, outputs, style, stride=self.stride)
        # the activation comes after the sum
        self.second = conv_block(dims, outputs, outputs, style, activate=False)
        self.activation = make_activation(style.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, …] to [n, outputs, …]."""
        h = self.second(self.first(x))
        if self.residual:
            h = self.apply_shortcut(x) + h
        return self.activation(h)

    def apply_shortcut(self, x: Tensor) -> Tensor:
        """Bring the block's input to the shape of its output."""
        if self.stride == 1:
            return x
        sampled = x[..., ::2] if x.ndim == 3 else x[..., ::2, ::2]
        # torch counts pads from the last dimension: none along positions, then the new channels
        return functional.pad(sampled, (0, 0) * (x.ndim - 2) + (0, self.new_channels))
