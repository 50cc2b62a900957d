"""Models that are linear in their weights: of the features, or of their powers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_int
from truerisk.model.shape import count_features


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
