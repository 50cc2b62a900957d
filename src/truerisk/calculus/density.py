"""The density of the eigenvalues."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from truerisk.calculus.estimate import Estimate, mean_of
from truerisk.calculus.lanczos import lanczos
from truerisk.calculus.operator import Operator


class Density(NamedTuple):
    """The share of the eigenvalues at each place, as k point measures: nodes and weights [k, m]."""

    nodes: Tensor
    weights: Tensor

    def expectation(self, values: Tensor) -> Estimate:
        """``1/p tr f(A)``, from f of the nodes, [k, m]."""
        return mean_of((self.weights * values).sum(1))

    def moment(self, order: int) -> Estimate:
        """``1/p tr Aʲ = 1/p Σ λⱼ``, unbiased up to order 2m − 1."""
        return self.expectation(self.nodes**order)

    def share(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """The share of eigenvalues in [low, high]."""
        return self.expectation(((low <= self.nodes) & (self.nodes <= high)).double())

    def on(self, grid: Tensor, width: float | None = None) -> Tensor:
        """The density on a grid of λ, [g], smoothed by a normal density.

        ``1/k Σ weight · N(λ; node, width²)``. Default width: 1 % of the spectrum's extent.
        """
        extent = float(self.nodes.max() - self.nodes.min()) or 1.0
        width = 0.01 * extent if width is None else width
        z = (grid.to(self.nodes)[:, None] - self.nodes.flatten()) / width
        bells = (-0.5 * z.square()).exp() / (width * math.sqrt(2 * math.pi))
        return bells @ self.weights.flatten() / len(self.nodes)


def spectral_density(
    a: Operator, probes: int = 8, steps: int = 64, seed: int = 0, together: int | None = None
) -> Density:
    """The density of the eigenvalues by stochastic Lanczos quadrature.

    ``φ(λ) = 1/p Σ δ(λ − λᵢ) = E[vᵀδ(λ − A)v]`` for v with independent entries ±1/√p; each is
    integrated by the Gauss quadrature of ``steps`` Lanczos steps.

    Sources: Lin, Saad & Yang, "Approximating Spectral Densities of Large Matrices", SIAM Review 58
    (2016), §3.2; Ghorbani, Krishnan & Xiao, "An Investigation into Neural Net Optimization via
    Hessian Eigenvalue Density", ICML 2019, §2.

    Args:
        a: a symmetric operator.
        probes: k vectors v; the standard error falls as 1/√k.
        steps: m products for each v; isolated eigenvalues at both ends come out sharply.
        seed: of the vectors.
        together: vectors that move on in one pass over the data; all of them by default. The memory
            is p·steps·together numbers.
    """
    parts = []
    for block in a.probes(probes, seed, "density"):
        for starts in block.split(together or probes, 1):
            parts.append(lanczos(a, starts, steps))
    return Density(*(torch.cat(part) for part in zip(*parts, strict=True)))
