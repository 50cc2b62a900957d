"""A symmetric matrix, known by its products with vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.errors import ConfigError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

ENTRIES = 2**26
"""Most numbers a dense matrix may have without being asked for: half a gigabyte in float64."""

BLOCK = 16
"""Vectors that are multiplied in one pass over the data."""


class Operator:
    """A symmetric p × p matrix A; a subclass defines ``A @ v`` for v of shape [p] or [p, k]."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.dtype, self.device = size, dtype, device

    def __matmul__(self, v: Tensor) -> Tensor:
        """A v, of the shape of v."""
        raise NotImplementedError

    @property
    def eps(self) -> float:
        """The rounding unit of the dtype."""
        return torch.finfo(self.dtype).eps

    def dense(self, limit: int = ENTRIES) -> Tensor:
        """A itself, [p, p], made symmetric: (A + Aᵀ)/2.

        Raises:
            ConfigError: it would hold more than ``limit`` numbers.
        """
        check_size("a dense matrix", self.size**2, limit, self.dtype)
        identity = torch.eye(self.size, dtype=self.dtype, device=self.device)
        matrix = torch.cat([self @ block for block in identity.split(BLOCK, 1)], 1)
        return (matrix + matrix.T) / 2

    def probes(self, count: int, seed: int, name: str) -> Iterator[Tensor]:
        """Random signs ±1 (Rademacher) [p, k], at most `BLOCK` columns at a time."""
        generator = rng.named_generator(seed, name)
        for block in torch.empty(count).split(BLOCK):
            signs = torch.randint(0, 2, (len(block), self.size), generator=generator)
            yield (2 * signs - 1).T.to(self.device, self.dtype)

    def to_scipy(self) -> LinearOperator:
        """A as a float64 ``scipy.sparse.linalg.LinearOperator``."""
        import numpy as np
        from scipy.sparse.linalg import LinearOperator

        def product(v: np.ndarray) -> np.ndarray:
            vector = torch.from_numpy(np.ascontiguousarray(v)).to(self.device, self.dtype)
            return (self @ vector).double().cpu().numpy()

        shape = (self.size, self.size)
        return LinearOperator(shape, matvec=product, matmat=product, dtype=np.float64)


class Matrix(Operator):
    """A dense symmetric matrix as an operator.

    >>> Matrix(torch.diag(torch.tensor([1.0, 2.0]))) @ torch.ones(2)
    tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(len(matrix), matrix.dtype, matrix.device)
        self.matrix = matrix

    def __matmul__(self, v: Tensor) -> Tensor:
        """A v."""
        return self.matrix @ v


def check_size(what: str, entries: int, limit: int, dtype: torch.dtype) -> None:
    """Refuse what would hold more than ``limit`` numbers."""
    if entries > limit:
        raise ConfigError(
            f"{what} of {entries:,} numbers would take {entries * dtype.itemsize / 1e9:.1f} GB "
            f"(limit={limit:,} numbers): take products with vectors and what is made of them "
            "(eigenvalues, trace, density), a smaller model, or a larger limit"
        )
