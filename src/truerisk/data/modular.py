"""Arithmetic modulo a prime: all pairs, and what an operation makes of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from truerisk.core.checks import check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.data.samples import Samples

OPERATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "add": lambda a, b, p: a + b,
    "subtract": lambda a, b, p: a - b,
    "multiply": lambda a, b, p: a * b,
    "divide": lambda a, b, p: a * power_modulo(b, p - 2, p),
    "sum_of_squares": lambda a, b, p: a**2 + b**2,
    "quadratic": lambda a, b, p: a**2 + a * b + b**2,
    # a³ itself is within 64 bits only for small p
    "cubic": lambda a, b, p: a * a % p * a + a * b,
}
"""Those of Power et al. (2022), appendix A.1.1, on residues; the result is taken modulo p."""

MOST = 499
"""The largest prime: p² samples of 2p numbers are held at once."""


def power_modulo(base: Tensor, exponent: int, p: int) -> Tensor:
    """Compute base^exponent mod p; b^(p − 2) is 1/b, by Fermat's little theorem.

    Args:
        base: residues, int64 [n].
        exponent: at least 0.
        p: the modulus.

    >>> power_modulo(torch.tensor([1, 2, 3, 4]), 3, 5).tolist()    # 1/2 is 3, as 2·3 = 6
    [1, 3, 2, 4]
    """
    # by squaring, and modulo p at once: powers themselves overflow 64 bits
    result = torch.ones_like(base)
    while exponent:
        if exponent % 2:
            result = result * base % p
        base, exponent = base * base % p, exponent // 2
    return result


@dataclass(frozen=True)
class ModularPopulation:
    """a and b uniform over residues modulo p, independent, and y = a ∘ b mod p, with no noise.

    With ``divide`` b is not 0.
    """

    prime: int
    operation: str

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw x float32 [n, 2p] and classes y [n].

        Args:
            n: how many.
            generator: on whose device they are drawn.
        """
        least = int(self.operation == "divide")
        device = generator.device
        a = torch.randint(0, self.prime, (n,), generator=generator, device=device)
        b = torch.randint(least, self.prime, (n,), generator=generator, device=device)
        return self.encode(a, b)

    def encode(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, which has a 1 at a and one at p + b, and y = a ∘ b mod p.

        Args:
            a: residues, int64 [n].
            b: the same.
        """
        x = torch.cat([one_hot(part, self.prime) for part in (a, b)], 1).float()
        return x, OPERATIONS[self.operation](a, b, self.prime) % self.prime

    def bayes(self, x: Tensor) -> Tensor:
        """Return p(y | x) at raw x, [n, p]: 1 for the result."""
        a, b = x.unflatten(1, (2, self.prime)).argmax(2).T
        return one_hot(self.encode(a, b)[1], self.prime).to(x)


def modular_addition(prime: int = 53, operation: str = "add") -> Samples:
    """List all pairs of residues modulo a prime, with the result of an operation for a class.

    Args:
        prime: p; inputs have 2p numbers, one-hot codes of a and b beside each other.
        operation: ``add``, ``subtract``, ``multiply``, ``divide`` (by all but 0),
            ``sum_of_squares`` a² + b², ``quadratic`` a² + ab + b², or ``cubic`` a³ + ab.

    Returns:
        All p² samples (p² − p with ``divide``), with their population.

    Raises:
        ConfigError: the number is not a prime or too large, or the operation is not known.

    Source: Power et al., "Grokking: Generalization Beyond Overfitting on Small Algorithmic
    Datasets" (2022), §3.
    """
    p = check_int("data.source.prime", prime, least=2)
    if any(p % k == 0 for k in range(2, int(p**0.5) + 1)):
        raise ConfigError(f"data.source.prime is {p}, which is no prime")
    if p > MOST:
        raise ConfigError(f"data.source.prime is {p}: at most {MOST}, as all p² pairs are held")
    if operation not in OPERATIONS:
        hint = suggest(str(operation), OPERATIONS)
        raise ConfigError(f"data.source.operation is {operation!r}: {hint}")
    population = ModularPopulation(p, operation)
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(int(operation == "divide"), p))
    x, y = population.encode(*pairs.T)
    # all p, though sums of squares do not reach some of them
    names = range(p)
    return Samples(x, y, "classification", population=population, class_names=names)
