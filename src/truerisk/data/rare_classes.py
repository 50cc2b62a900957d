"""Classes of which most are rare, as words of a text are; inputs tell nothing of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator
from truerisk.data.samples import Samples

MOST = 12
"""The most groups: inputs of so many take 1.3 GB."""


@dataclass(frozen=True)
class RareClassPopulation:
    """x from U[0, 1]^d, and classes independent of it: 2^i of them in group i = 0 … m − 1.

    A class of group i has probability 2^(−i)/m, so that groups are alike likely, and the
    probability of the kth class falls as 1/k.

    Attributes:
        groups: m.
        dimension: d.
    """

    groups: int
    dimension: int

    @property
    def prior(self) -> Tensor:
        """The classes' probabilities, the most frequent first, [2^m − 1]."""
        return torch.cat([torch.full((2**i,), 2.0**-i / self.groups) for i in range(self.groups)])

    def bayes(self, x: Tensor) -> Tensor:
        """Return p(k | x), which is p(k), [n, 2^m − 1], at raw x [n, d]."""
        return self.prior.to(x).expand(len(x), -1)

    def draw_inputs(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw x, float32 [n, d].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        shape = (n, self.dimension)
        return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, d] and classes y [n].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        prior = self.prior.to(generator.device)
        y = torch.multinomial(prior, n, replacement=True, generator=generator)
        return self.draw_inputs(n, generator), y


def rare_classes(groups: int = 7, dimension: int | None = None, seed: int | None = None) -> Samples:
    """Draw samples of classes whose number doubles as their frequency halves, group by group.

    One class has 2^m samples, two have 2^(m − 1) each, and so on to 2^(m − 1) classes of two. As
    inputs tell nothing, what a model learns beyond the frequencies it has learned by heart.

    Args:
        groups: m; there are 2^m − 1 classes and m · 2^m samples, each split of its own part.
        dimension: d; None for (m + 1) · 2^m, more than samples, so that a line tells them apart.
        seed: of the inputs.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range.

    Source: Kunstner et al., "Heavy-Tailed Class Imbalance and Why Adam Outperforms Gradient Descent
    on Language Models" (2024), the linear model on synthetic data; sizes as in their code.
    """
    m = check_int("data.source.groups", groups, least=2)
    if m > MOST:
        raise ConfigError(f"data.source.groups is {m}: at most {MOST}, as all inputs are held")
    size = (m + 1) * 2**m
    if dimension is not None:
        size = check_int("data.source.dimension", dimension)
    population = RareClassPopulation(m, size)
    # exactly as many as are expected, as in the source
    counts = (population.prior * m * 2**m).round().long()
    y = torch.repeat_interleave(torch.arange(len(counts)), counts)
    x = population.draw_inputs(len(y), named_generator(seed or 0, "samples"))
    names = range(1, len(counts) + 1)
    return Samples(x, y, "classification", population=population, class_names=names)
