"""A polynomial seen through noise: the textbook picture of over- and underfitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator
from truerisk.data.samples import Samples


@dataclass(frozen=True)
class PolynomialPopulation:
    """x ~ U[−1, 1], y = Σ cₖ xᵏ + noise · z with z ~ N(0, 1).

    >>> PolynomialPopulation((1.0, 0.0, 2.0), 0.1).mean(torch.tensor([[3.0]]))
    tensor([[19.]])
    """

    coefficients: tuple[float, ...]
    noise: float

    def mean(self, x: Tensor) -> Tensor:
        """Compute E[y | x] = Σ cₖ xᵏ, [n, 1], at raw x [n, 1]."""
        value = torch.zeros_like(x)
        for c in reversed(self.coefficients):
            value = value * x + c
        return value

    @property
    def noise_variance(self) -> float:
        """The variance of y given x."""
        return self.noise**2

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, 1] and y [n, 1].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        draws = torch.empty(n, 1, device=generator.device, dtype=torch.float32)
        x = draws.uniform_(generator=generator) * 2 - 1
        z = draws.normal_(generator=generator)
        return x, self.mean(x) + self.noise * z


def polynomial(
    num_samples: int = 250,
    coefficients: Sequence[float] = (0.0, -3.0, 0.0, 4.0),
    noise: float = 0.2,
    seed: int | None = None,
) -> Samples:
    """Draw samples of a polynomial and noise.

    Args:
        num_samples: of all splits together.
        coefficients: c₀, c₁, ….
        noise: standard deviation of what is added to the polynomial.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: no coefficients, no samples, or a negative noise.
    """
    if not len(coefficients):
        raise ConfigError("data.source.coefficients is empty: give c0, c1, … as in [0, 1]")
    if num_samples < 1:
        raise ConfigError(f"data.source.num_samples is {num_samples}: give at least 1")
    if noise < 0:
        raise ConfigError(f"data.source.noise is {noise}: a standard deviation is not negative")
    population = PolynomialPopulation(tuple(float(c) for c in coefficients), float(noise))
    x, y = population.sample(num_samples, named_generator(seed or 0, "samples"))
    return Samples(x, y, "regression", population=population)
