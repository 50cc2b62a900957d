"""A matrix seen through the step lengths of a method."""

from __future__ import annotations

from torch import Tensor

from truerisk.calculus.operator import Operator


class Scaled(Operator):
    """``S^½ (A + diag(c)) S^½`` for positive s [p] and c [p].

    A step ``−S (A + diag(c)) w`` on ½wᵀ(A + diag(c))w moves w along its eigenvectors, seen in the
    coordinates ``S^−½ w``.

    >>> import torch
    >>> from truerisk.calculus.operator import Matrix
    >>> a = Scaled(Matrix(torch.ones(2, 2)), torch.tensor([1.0, 4.0]), torch.tensor([0.0, 1.0]))
    >>> a.dense()
    tensor([[1., 2.],
            [2., 8.]])
    """

    def __init__(self, a: Operator, scale: Tensor, shift: Tensor) -> None:
        super().__init__(a.size, a.dtype, a.device)
        self.a, self.root, self.shift = a, scale.sqrt(), shift

    def __matmul__(self, v: Tensor) -> Tensor:
        """The product with v, of the shape of v."""
        root, shift = (t if v.ndim == 1 else t[:, None] for t in (self.root, self.shift))
        scaled = root * v
        return root * (self.a @ scaled + shift * scaled)
