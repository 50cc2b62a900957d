"""The vision transformer: an encoder of an image's patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.building_blocks import LayerStyle, make_normalization, name_layers
from truerisk.model.cnn import image_shape
from truerisk.model.transformer import EncoderLayer


class VisionTransformer(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021, §3.1): a pre-norm encoder of patches.

    Each patch is embedded linearly. A learned class token comes before them, learned positions are
    added, and after ``depth`` layers a last normalization and a linear layer read the class token.

    The paper's ViT-B/16 is ``patch=16 width=768 heads=12``; ViT-S and ViT-Ti of Touvron et al. 2021
    are 384 wide with 6 heads, and 192 with 3. Each has 12·width parameters less here, as keys have
    no bias; no output depended on it (`truerisk.model.transformer.SelfAttention`).

    Args:
        input_shape: (channels, height, width) of one image, or (height, width).
        output_size: number of outputs.
        patch: side of a patch; divides both sides of the image.
        width: features of a token.
        depth: number of layers.
        heads: attention heads; divides ``width``.
        expansion: hidden units of the feed-forward part as a multiple of ``width``.
        activation: of the feed-forward part.
        normalization: layer or none.
        bias: whether layers have a bias.

    Raises:
        ConfigError: the samples are no images; a size is not a whole number or does not fit, or a
            name is not known.

    >>> VisionTransformer((3, 32, 32), 10, depth=1)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        patch: int = 4,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        expansion: int = 4,
        activation: str = "gelu",
        normalization: str = "layer",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if normalization not in ("layer", "none"):
            raise ConfigError(
                f"model.normalization={normalization} does not fit model=vit: layer or none"
            )
        self.image_shape = image_shape("vit", input_shape)
        channels, *size = self.image_shape
        patches = count_patches(size, check_int("model.patch", patch))
        check_int("model.width", width)
        check_int("model.heads", heads)
        hidden = width * check_int("model.expansion", expansion)
        check_int("model.depth", depth)
        style = LayerStyle(activation, normalization, bias=bias)
        # a convolution with steps as long as its kernel: one linear map of each patch
        self.embedding = nn.Conv2d(channels, width, patch, stride=patch, bias=bias)
        self.token = nn.Parameter(torch.zeros(width))
        # the scale of BERT (Devlin et al. 2019), as the paper has it
        self.positions = nn.Parameter(torch.empty(patches + 1, width).normal_(std=0.02))
        self.layers = nn.Sequential(
            *(EncoderLayer(width, heads, hidden, style) for _ in range(depth))
        )
        self.last = name_layers(normalization=make_normalization(normalization, width))
        self.output = nn.Linear(width, output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, *input_shape] to outputs [n, output_size]."""
        patches = self.embedding(x.reshape(-1, *self.image_shape)).flatten(2).transpose(1, 2)
        token = self.token.expand(len(patches), 1, -1)
        tokens = self.layers(torch.cat([token, patches], 1) + self.positions)
        # the other tokens are read by attention alone
        return self.output(self.last(tokens[:, 0]))


def count_patches(size: Sequence[int], patch: int) -> int:
    """Count the patches of an image.

    Args:
        size: (height, width).
        patch: side of a patch.

    Returns:
        Their number.

    Raises:
        ConfigError: patches do not cover the image.

    >>> count_patches((32, 32), 4)
    64
    """
    height, width = size
    if height % patch or width % patch:
        # patches are square
        fitting = [p for p in range(1, min(size) + 1) if not (height % p or width % p)]
        raise ConfigError(
            f"model.patch={patch} does not divide images of {height} x {width}; "
            f"possible: {', '.join(map(str, fitting))}"
        )
    return (height // patch) * (width // patch)
