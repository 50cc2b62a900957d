"""Sequences whose targets hang on what came long before, of a P that is known; and parities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator
from truerisk.data.samples import Population, Samples

SYMBOLS = 6
"""A and B, which count, and four that do not."""
COPIED = 10
"""Symbols of a sequence that are to be recalled."""
BLANK, MARKER = 8, 9
"""Tokens after the eight symbols, as the source numbers them."""


@dataclass(frozen=True)
class AddingPopulation:
    """x [2, T]: numbers from U[0, 1], and marks at two of them; y is the sum of the two marked.

    One mark lies in the first half of the steps and one in the second, each anywhere. The best
    constant is 1, of squared error 1/6.
    """

    steps: int
    noise_variance: float = 0.0

    def mean(self, x: Tensor) -> Tensor:
        """Compute y, [n, 1], which x tells, at raw x [n, 2, T]."""
        return (x[:, 0] * x[:, 1]).sum(1, keepdim=True)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, 2, T] and y [n, 1].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        device = generator.device
        half = self.steps // 2
        numbers = torch.rand(n, self.steps, generator=generator, device=device, dtype=torch.float32)
        marks = torch.zeros_like(numbers)
        for low, high in ((0, half), (half, self.steps)):
            at = torch.randint(low, high, (n, 1), generator=generator, device=device)
            marks.scatter_(1, at, 1.0)
        x = torch.stack([numbers, marks], 1)
        return x, self.mean(x)


def adding(num_samples: int = 10_000, steps: int = 150, seed: int | None = None) -> Samples:
    """Draw sequences of numbers, two of which are marked; the target is their sum.

    Args:
        num_samples: of all splits together.
        steps: T, the length of a sequence.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range.

    Source: Hochreiter & Schmidhuber 1997, §5.4; the marks as in Arjovsky, Shah & Bengio 2016, §5.2.
    """
    check_int("data.source.steps", steps, 2)
    return _draw_samples(AddingPopulation(steps), num_samples, "regression", seed)


@dataclass(frozen=True)
class TemporalOrderPopulation:
    """x [6, T]: symbols, one of six a step; the class is which of A and B came first and second.

    The first of the two lies between T/10 and 2T/10, the second between 4T/10 and 5T/10; all other
    steps have one of four other symbols. Classes are AA, AB, BA and BB.
    """

    steps: int

    def bayes(self, x: Tensor) -> Tensor:
        """Return p(k | x), 1 for the class that x tells, [n, 4], at raw x [n, 6, T]."""
        counted = x[:, :2].sum(1)
        # of equal values argmax takes any: the first is told by falling weights
        falling = torch.arange(x.shape[2], 0, -1).to(x)
        places = (counted * falling).topk(2).indices
        letters = x[:, 1].gather(1, places).long()
        return torch.nn.functional.one_hot(2 * letters[:, 0] + letters[:, 1], 4).to(x)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, 6, T] and classes y [n].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        device, tenth = generator.device, self.steps / 10
        symbols = torch.randint(2, SYMBOLS, (n, self.steps), generator=generator, device=device)
        letters = torch.randint(2, (n, 2), generator=generator, device=device)
        for i, low in enumerate((1, 4)):
            # both ends among them, as in the source
            ends = int(low * tenth), int((low + 1) * tenth) + 1
            at = torch.randint(*ends, (n, 1), generator=generator, device=device)
            symbols.scatter_(1, at, letters[:, i : i + 1])
        x = torch.nn.functional.one_hot(symbols, SYMBOLS).mT.float().contiguous()
        return x, 2 * letters[:, 0] + letters[:, 1]


def temporal_order(num_samples: int = 10_000, steps: int = 50, seed: int | None = None) -> Samples:
    """Draw sequences of symbols; the class is the order of the two that count.

    Args:
        num_samples: of all splits together.
        steps: T, the length of a sequence.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range.

    Source: Hochreiter & Schmidhuber 1997, §5.6; places as in Pascanu, Mikolov & Bengio 2013, §4.1.
    """
    check_int("data.source.steps", steps, 10)
    names = ["AA", "AB", "BA", "BB"]
    return _draw_samples(TemporalOrderPopulation(steps), num_samples, "classification", seed, names)


@dataclass(frozen=True)
class CopyPopulation:
    """x [T + 20]: ten of eight symbols, T − 1 blanks, a marker, ten blanks; y asks for the ten.

    y has T + 10 blanks, and then the symbols in their order. Who remembers nothing knows where
    blanks are, and pays log 8 for each symbol: 10 log 8 / (T + 20) on average over the steps.
    """

    blanks: int

    def recall(self, x: Tensor) -> Tensor:
        """Compute y, int64 [n, T + 20], which x tells, at tokens x [n, T + 20]."""
        y = torch.full_like(x, BLANK)
        y[:, -COPIED:] = x[:, :COPIED]
        return y

    def bayes(self, x: Tensor) -> Tensor:
        """Return the probability of each token at each step given x, 0 or 1, [n, T + 20, 10]."""
        return torch.nn.functional.one_hot(self.recall(x), MARKER + 1).float()

    def marginals(self) -> Tensor:
        """Return the probability of each token at each step for who sees no x, [1, T + 20, 10]."""
        p = torch.zeros(1, self.blanks + 2 * COPIED, MARKER + 1)
        p[:, :-COPIED, BLANK] = 1
        p[:, -COPIED:, :BLANK] = 1 / BLANK
        return p

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw tokens x and y, int64 [n, T + 20].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        device = generator.device
        x = torch.full((n, self.blanks + 2 * COPIED), BLANK, device=device)
        x[:, :COPIED] = torch.randint(BLANK, (n, COPIED), generator=generator, device=device)
        # so that T steps lie between the last symbol and where the first one is asked for
        x[:, -COPIED - 1] = MARKER
        return x, self.recall(x)


def copy_memory(num_samples: int = 10_000, blanks: int = 50, seed: int | None = None) -> Samples:
    """Draw sequences of tokens whose first ten are to be given again at the end.

    Args:
        num_samples: of all splits together.
        blanks: T, how long they are to be kept; a sequence has T + 20 tokens.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range.

    Source: Hochreiter & Schmidhuber 1997; in the form of Arjovsky, Shah & Bengio 2016, §5.1.
    """
    check_int("data.source.blanks", blanks)
    return _draw_samples(CopyPopulation(blanks), num_samples, "next_token", seed)


@dataclass(frozen=True)
class ParityPopulation:
    """x [d] of bits, each 0 or 1 alike often; the class is whether the first k have an odd sum."""

    dimension: int
    relevant: int

    def bayes(self, x: Tensor) -> Tensor:
        """Return p(k | x), 1 for the class that x tells, [n, 2], at raw x [n, d]."""
        odd = x[:, : self.relevant].sum(1).long() % 2
        return torch.nn.functional.one_hot(odd, 2).to(x)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, d] and classes y [n].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        size = (n, self.dimension)
        x = torch.randint(2, size, generator=generator, device=generator.device).float()
        return x, self.bayes(x).argmax(1)


def parity(
    num_samples: int = 2000,
    dimension: int = 10,
    relevant: int | None = None,
    seed: int | None = None,
) -> Samples:
    """Draw bits; the class is whether there is an odd number of ones among those that count.

    Args:
        num_samples: of all splits together.
        dimension: d, the number of bits.
        relevant: k, how many of them count, from the first on; None for all.
        seed: of the samples.

    Returns:
        Samples with their population.

    Raises:
        ConfigError: a number out of range.

    Source: Minsky & Papert 1969, Perceptrons, §3.1.
    """
    check_int("data.source.dimension", dimension)
    counted = dimension
    if relevant is not None:
        counted = check_int("data.source.relevant", relevant)
    if counted > dimension:
        raise ConfigError(
            f"data.source.relevant is {relevant}: there are {dimension} bits, as "
            "data.source.dimension says"
        )
    population = ParityPopulation(dimension, counted)
    return _draw_samples(population, num_samples, "classification", seed, ["even", "odd"])


def _draw_samples(
    population: Population, n: int, task: str, seed: int | None, names: list[str] | None = None
) -> Samples:
    check_int("data.source.num_samples", n)
    x, y = population.sample(n, named_generator(seed or 0, "samples"))
    return Samples(x, y, task, population=population, class_names=names)
