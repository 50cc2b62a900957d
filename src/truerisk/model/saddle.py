"""Functions without a lowest value: saddles and a cubic."""

from __future__ import annotations

from torch import Tensor

from truerisk.model.function import Function


class Saddle(Function):
    """f(x, y) = x² − y². Stationary at the origin alone, with Hessian eigenvalues 2 and −2.

    Gradient descent gets away from the saddle as (1 + 2η)ᵗ times its first distance y from the
    axis, and not at all from y = 0.

    >>> import torch
    >>> Saddle([1.0, 0.01]).value(torch.tensor([2.0, 1.0]))
    tensor(3.)
    """

    bounded = False

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return x.square() - y.square()


class MonkeySaddle(Function):
    """f(x, y) = x³ − 3xy². Stationary at the origin alone, where the Hessian vanishes.

    Three valleys go down from it, two for the legs and one for the tail.

    >>> import torch
    >>> MonkeySaddle([1.0, 0.1]).value(torch.tensor([-1.0, 1.0]))
    tensor(2.)
    """

    bounded = False

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return x**3 - 3 * x * y.square()


class Cubic(Function):
    """f(x) = −x³ + 3x. A local minimum, −2 at −1, a local maximum, 2 at 1; below both for large x.

    From a start above 1 the descent has no end, and gradient descent leaves the finite numbers
    after a few steps.

    >>> import torch
    >>> Cubic([1.1]).value(torch.tensor([[-1.0], [1.0], [10.0]]))
    tensor([  -2.,    2., -970.])
    """

    size = 1
    known = ((-1.0,),)
    minimum = -2.0
    bounded = False
    region = ((-2.5, 2.5),)

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 1], of shape [...]."""
        x = w.squeeze(-1)
        return -(x**3) + 3 * x
