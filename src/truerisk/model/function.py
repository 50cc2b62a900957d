"""Functions of the weights alone, to watch an optimizer on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError

Range = tuple[float, float]


class Function(nn.Module):
    """A function f: ℝᵈ → ℝ of its own parameter vector ``w`` [d]; its inputs only count samples.

    A subclass writes ``value``; derivatives are autograd's. ``known`` are minimizers, global ones
    where f is bounded below and local ones where it is not, and ``minimum`` is the value there.
    ``region`` is the part of the space worth looking at, a pair (low, high) an axis; ``reach`` is
    the largest entry of the start, at least 1.

    Args:
        start: w before the first step, d numbers.
        dtype: of ``w``; None for torch's default.

    Raises:
        ConfigError: ``start`` is not d finite numbers.
    """

    size: int = 2
    known: Sequence[Sequence[float]] = ()
    minimum: float | None = None
    bounded: bool = True
    region: Sequence[Range] = ((-2.0, 2.0), (-2.0, 2.0))

    def __init__(self, start: list[float], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        numbers = checked_start(start)
        if len(numbers) != self.size:
            raise ConfigError(
                f"model.start has {len(numbers)} numbers, but this function takes {self.size}"
            )
        self.reach = max(1.0, *map(abs, numbers))
        self.w = nn.Parameter(torch.tensor(numbers, dtype=dtype or torch.get_default_dtype()))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """f(w) for each of n samples, [n, 1]."""
        return self.value(self.w).expand(len(x), 1)

    @property
    def minima(self) -> Tensor:
        """The known minimizers [k, d] in float64; k is 0 where there are none."""
        return torch.tensor(self.known, dtype=torch.float64).reshape(-1, self.size)

    def distance(self, w: Tensor) -> Tensor:
        """The Euclidean distance [...] of points [..., d] from the nearest known minimizer.

        It is infinite where no minimizer is known.
        """
        points = w.detach().cpu().double().unsqueeze(-2)
        if not len(self.minima):
            return torch.full(points.shape[:-2], math.inf, dtype=torch.float64)
        return torch.linalg.vector_norm(points - self.minima, dim=-1).amin(-1)


class Scalable(Function):
    """A function of any number of variables, whose minimizer has the same entry everywhere.

    Args:
        start: w before the first step; repeated until it has ``dimension`` entries.
        dimension: number of variables d.
        dtype: of ``w``; None for torch's default.

    Raises:
        ConfigError: ``dimension`` is less than the function needs or than ``start`` has.
    """

    least: int = 1
    entry: float = 0.0

    def __init__(
        self, start: list[float], dimension: int = 2, dtype: torch.dtype | None = None
    ) -> None:
        self.size = check_int("model.dimension", dimension, self.least)
        super().__init__(repeated(start, dimension), dtype)

    @property
    def minima(self) -> Tensor:
        """The known minimizer, [1, d]."""
        return torch.full((1, self.size), self.entry, dtype=torch.float64)


def checked_start(start: Any) -> list[float]:
    """The start, if it is a list of finite numbers."""
    if not isinstance(start, Sequence) or isinstance(start, str) or not start:
        raise ConfigError(f"model.start must be a list of numbers, not {start!r}")
    top = torch.finfo(torch.float64).max
    return [float(check_float("model.start", number, -top, top)) for number in start]


def repeated(start: list[float], size: int) -> list[float]:
    """The numbers, from the first again once they are used up.

    >>> repeated([-1.2, 1.0], 5)
    [-1.2, 1.0, -1.2, 1.0, -1.2]
    """
    numbers = checked_start(start)
    if len(numbers) > size:
        raise ConfigError(
            f"model.start has {len(numbers)} numbers, more than model.dimension={size}"
        )
    return [numbers[i % len(numbers)] for i in range(size)]
