"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.building_blocks import LayerStyle, linear_block
from truerisk.model.shape import count_features


class MLP(nn.Module):
    """Multilayer perceptron: hₖ = φ(norm(Wₖ hₖ₋₁ + bₖ)) from h₀ = vec(x), outputs W h + b.

    Args:
        input_shape: shape of one sample.
        output_size: number of outputs.
        width: units of every hidden layer.
        depth: number of hidden layers.
        widths: units of each hidden layer, in place of ``width`` and ``depth``.
        activation: φ.
        normalization: none, batch, layer or group; before the activation.
        groups: number of groups of group normalization.
        bias: whether layers have a bias; left out before batch normalization.
        residual: hₖ = hₖ₋₁ + φ(…) wherever the two layers have the same width, as the MLP in the
            code of Greydanus & Kobak (2020) has it.

    Raises:
        ConfigError: a size is not a whole number, or a name is not known.

    >>> sum(p.numel() for p in MLP((1, 40), 10, widths=[100, 100]).parameters())
    15210
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_size: int,
        width: int = 100,
        depth: int = 2,
        widths: Sequence[int] | None = None,
        activation: str = "relu",
        normalization: str = "none",
        groups: int = 4,
        bias: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        style = LayerStyle(activation, normalization, groups, bias)
        sizes = [count_features(input_shape), *list_widths(width, depth, widths)]
        self.hidden = nn.Sequential(*(linear_block(a, b, style) for a, b in pairwise(sizes)))
        # not around the first, whose input is the sample
        self.skips = [residual and k > 0 and a == b for k, (a, b) in enumerate(pairwise(sizes))]
        self.output = nn.Linear(sizes[-1], output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        h = x.flatten(1)
        for layer, skip in zip(self.hidden, self.skips, strict=True):
            h = h + layer(h) if skip else layer(h)
        return self.output(h)


def list_widths(width: int, depth: int, widths: Sequence[int] | None) -> list[int]:
    """List the units of each hidden layer.

    Args:
        width: units of every layer.
        depth: number of layers.
        widths: units of each layer, in place of both.

    Raises:
        ConfigError: a size is not a whole number, or ``widths`` is no list.

    >>> list_widths(100, 2, None), list_widths(100, 2, [30, 20, 10])
    ([100, 100], [30, 20, 10])
    """
    if widths is None:
        return [check_int("model.width", width)] * check_int("model.depth", depth, least=0)
    # not `isinstance(widths, list)`: what Hydra passes is a list of its own kind
    if isinstance(widths, int | float | str):
        raise ConfigError(f"model.widths must be a list such as [100,100], not {widths!r}")
    return [check_int("model.widths", w) for w in widths]
