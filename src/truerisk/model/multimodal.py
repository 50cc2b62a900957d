"""Functions with many minima: Styblinski–Tang, Rastrigin, Ackley, a product of sines."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from truerisk.model.function import Function, Scalable


class StyblinskiTang(Scalable):
    """f(w) = ½ Σ (wᵢ⁴ − 16 wᵢ² + 5 wᵢ). Minimum −39.16617 d where every wᵢ is −2.903534.

    Each variable has a second, local minimum at 2.746803, so there are 2ᵈ minima in all.

    Source: Styblinski & Tang, "Experiments in Nonconvex Optimization: Stochastic Approximation
    with Function Smoothing and Simulated Annealing", Neural Networks 3 (1990).

    >>> StyblinskiTang([0.0]).value(torch.tensor([-2.903534, -2.903534]))
    tensor(-78.3323)
    """

    entry = -2.903534027771177
    region = ((-5.0, 5.0), (-5.0, 5.0))

    @property
    def minimum(self) -> float:  # type: ignore[override]
        """The value at the global minimum."""
        return -39.16616570377142 * self.size

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        return 0.5 * (w**4 - 16 * w.square() + 5 * w).sum(-1)


class Rastrigin(Scalable):
    """f(w) = Σ wᵢ² + 10 (1 − cos 2πwᵢ). Minimum 0 at the origin, a local one near every integer.

    Source: Rastrigin, *Systems of Extremal Control* (1974), in the form for d variables of
    Mühlenbein, Schomisch & Born, Parallel Computing 17 (1991).

    >>> Rastrigin([0.5]).value(torch.tensor([0.5, 0.0]))
    tensor(20.2500)
    """

    minimum = 0.0
    region = ((-5.12, 5.12), (-5.12, 5.12))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        return (w.square() + 10 * (1 - torch.cos(2 * math.pi * w))).sum(-1)


class Ackley(Scalable):
    """f(w) = 20 (1 − exp(−‖w‖/(5√d))) + e − exp(1/d Σ cos 2πwᵢ). Minimum 0 at the origin.

    The minimum is the tip of a cone: f has no gradient there, and autograd answers 0.

    Source: Ackley, *A Connectionist Machine for Genetic Hillclimbing* (1987), with the constants
    of Bäck, *Evolutionary Algorithms in Theory and Practice* (1996).

    >>> Ackley([1.0]).value(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    tensor([0.0000, 3.6254])
    """

    minimum = 0.0
    region = ((-5.0, 5.0), (-5.0, 5.0))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        length = torch.linalg.vector_norm(w, dim=-1) / math.sqrt(self.size)
        waves = torch.cos(2 * math.pi * w).mean(-1)
        return 20 * (1 - torch.exp(-length / 5)) + math.e - torch.exp(waves)


class SineProduct(Function):
    """f(x, y) = sin x · sin y. Minimum −1 at (π/2 + kπ, π/2 + lπ) with k + l odd.

    Minima, maxima and saddles alternate like the fields of a chessboard; the nearest minima to the
    origin are known.

    >>> SineProduct([0.4, 0.2]).value(torch.tensor([math.pi / 2, -math.pi / 2]))
    tensor(-1.)
    """

    known = tuple(
        (k * math.pi / 2, l * math.pi / 2)
        for k, l in product((-3, -1, 1, 3), repeat=2)  # noqa: E741
        if (k + l) % 4 == 0
    )
    minimum = -1.0
    region = ((-math.pi, math.pi), (-math.pi, math.pi))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return torch.sin(x) * torch.sin(y)
