"""Polynomials with curved valleys: Rosenbrock, Himmelblau, Beale."""

from __future__ import annotations

from torch import Tensor

from truerisk.model.function import Function, Scalable


class Rosenbrock(Scalable):
    """f(w) = Σ 100 (wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)², i = 1 … d−1. Minimum 0 at (1, …, 1).

    The valley wᵢ₊₁ = wᵢ² is curved and flat along its floor; the Hessian's condition number at
    the minimum is about 2500 for d = 2. From d = 4 on there is a second, local minimum near
    (−1, 1, …, 1).

    Source: Rosenbrock, "An Automatic Method for Finding the Greatest or Least Value of a
    Function", The Computer Journal 3 (1960); the start (−1.2, 1) is his.

    >>> import torch
    >>> Rosenbrock([-1.2, 1.0]).value(torch.tensor([-1.2, 1.0]))
    tensor(24.2000)
    """

    least = 2
    entry = 1.0
    minimum = 0.0
    region = ((-2.0, 2.0), (-1.0, 3.0))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., d], of shape [...]."""
        first, second = w[..., :-1], w[..., 1:]
        return (100 * (second - first.square()).square() + (1 - first).square()).sum(-1)


class Himmelblau(Function):
    """f(x, y) = (x² + y − 11)² + (x + y² − 7)². Minimum 0 at four points, one a quadrant.

    Source: Himmelblau, *Applied Nonlinear Programming* (1972).

    >>> import torch
    >>> Himmelblau([0.0, 0.0]).value(torch.tensor([[0.0, 0.0], [3.0, 2.0]]))
    tensor([170.,   0.])
    """

    known = (
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.283185991286170),
        (3.584428340330492, -1.848126526964404),
    )
    minimum = 0.0
    region = ((-5.0, 5.0), (-5.0, 5.0))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return (x.square() + y - 11).square() + (x + y.square() - 7).square()


class Beale(Function):
    """f(x, y) = (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)². Minimum 0 at (3, ½).

    Flat plateaus between steep walls. Source: Beale, "On an Iterative Method of Finding a Local
    Minimum of a Function of More than One Variable", Princeton technical report 25 (1958); the
    start (1, 1) is that of Moré, Garbow & Hillstrom, ACM TOMS 7 (1981), no. 5.

    >>> import torch
    >>> Beale([1.0, 1.0]).value(torch.tensor([[1.0, 1.0], [3.0, 0.5]]))
    tensor([14.2031,  0.0000])
    """

    known = ((3.0, 0.5),)
    minimum = 0.0
    region = ((-4.5, 4.5), (-4.5, 4.5))

    def value(self, w: Tensor) -> Tensor:
        """f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        terms = ((1.5, 1), (2.25, 2), (2.625, 3))
        squares = [(target - x + x * y**power).square() for target, power in terms]
        return squares[0] + squares[1] + squares[2]
