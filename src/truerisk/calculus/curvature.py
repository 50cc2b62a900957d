"""What Hessian and Gauss–Newton matrix have in common: a mean over batches of products."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from truerisk.calculus.operator import BLOCK, Operator
from truerisk.calculus.point import Point
from truerisk.calculus.pullback import Linear
from truerisk.core.batch import Batch


class Curvature(Operator):
    """A = 1/N Σ n·A_batch at a point; a subclass says what ``product`` does on one batch.

    A product runs once through all batches, in the memory of one; the k vectors of ``A @ V`` share
    the forward passes. Where all samples are in a single batch, its graph is kept, so that the next
    product needs no forward pass: delete the operator to free it.
    """

    def __init__(self, point: Point) -> None:
        super().__init__(point.space.size, point.w.dtype, point.w.device)
        self.point = point
        self._kept: Linear | None = None

    def product(self, batch: Batch) -> Linear:
        """The function v ↦ A_batch v, for v of shape [p]."""
        raise NotImplementedError

    def __matmul__(self, v: Tensor) -> Tensor:
        """A v, for v of shape [p] or [p, k]."""
        v = v.detach().to(self.device, self.dtype)
        times = columns if v.ndim > 1 else _apply
        return self.point.mean(lambda batch: times(self._product(batch), v))

    def _product(self, batch: Batch) -> Linear:
        if not self.point.single:
            return self.product(batch)
        if self._kept is None:
            self._kept = self.product(batch)
        return self._kept


def _apply(product: Linear, v: Tensor) -> Tensor:
    return product(v)


def columns(product: Linear, matrix: Tensor) -> Tensor:
    """Apply a linear function to the columns of [p, k]: together where layers can be vmapped."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            return torch.vmap(product, 1, 1, chunk_size=BLOCK)(matrix)
    except RuntimeError:
        return torch.stack([product(column) for column in matrix.unbind(1)], 1)
