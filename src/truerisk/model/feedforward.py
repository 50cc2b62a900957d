"""Networks without convolution or memory: linear, linear in powers, and the perceptron."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.model.building_blocks import LayerStyle, count_features, linear_block


class Linear(nn.Module):
    """Linear (with a cross-entropy loss: multinomial logistic) regression: W·vec(x) + b.

    Args:
        input_shape: shape of one sample; d numbers in all.
        output_size: number of outputs K.
        bias: whether there is a b. Parameters: K·d, and K with a bias.

    >>> sum(p.numel() for p in Linear((1, 40), 10).parameters())
    410
    """

    def __init__(self, input_shape: Sequence[int], output_size: int, bias: bool = True) -> None:
        super().__init__()
        self.output = nn.Linear(count_features(input_shape), output_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        return self.output(x.flatten(1))


class Polynomial(nn.Module):
    """Σⱼ Σₖ Wₖⱼ √(2k+1) Pₖ(xⱼ) + b, with Legendre's polynomials Pₖ, k = 1 … degree.

    These are orthonormal for x uniform on [−1, 1], so that least squares is well conditioned. The
    features are to lie there; ``data.standardize=none`` leaves them where they are.

    Args:
        input_shape: shape of one sample.
        output_size: number of outputs.
        degree: of the polynomial; 0 leaves b alone.

    >>> model = Polynomial((1,), 1, degree=2)
    >>> legendre_features(torch.tensor([[1.0], [0.5]]), 2).square()  # of √3 x and √5 (3x² − 1)/2
    tensor([[3.0000, 5.0000],
            [0.7500, 0.0781]])
    """

    def __init__(self, input_shape: Sequence[int], output_size: int, degree: int = 3) -> None:
        super().__init__()
        self.degree = check_int("model.degree", degree, least=0)
        with warnings.catch_warnings():
            # at degree 0 there are no weights beside b to draw
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.output = nn.Linear(count_features(input_shape) * self.degree, output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples [n, *input_shape] to outputs [n, output_size]."""
        return self.output(legendre_features(x.flatten(1), self.degree))


def legendre_features(x: Tensor, degree: int) -> Tensor:
    """Compute √(2k+1) Pₖ of each feature, k = 1 … degree.

    Args:
        x: features [n, d].
        degree: of the last polynomial.

    Returns:
        [n, d·degree], all features of one k together.
    """
    # Bonnet's recursion: (k + 1) Pₖ₊₁ = (2k + 1) x Pₖ − k Pₖ₋₁
    values = [torch.ones_like(x), x]
    for k in range(1, degree):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    scaled = [(2 * k + 1) ** 0.5 * values[k] for k in range(1, degree + 1)]
    if not scaled:
        return x[:, :0]  # degree 0: a bias and no features
    return torch.cat(scaled, 1)


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
