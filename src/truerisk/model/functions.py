"""Functions of the weights alone, to watch an optimizer on.

Bowls (Paraboloid, Booth), curved valleys (Rosenbrock, Himmelblau, Beale), saddles and a cubic
without a lowest value, and functions with many minima (Styblinski–Tang, Rastrigin, Ackley, a
product of sines, a random field).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError
from truerisk.core.rng import named_generator

Range = tuple[float, float]


class Function(nn.Module):
    """A function f: ℝᵈ → ℝ of its own parameter vector ``w`` [d]; its inputs only count samples.

    A subclass writes ``value``; derivatives are autograd's.

    Attributes:
        size: number of variables d.
        known: minimizers, global ones where f is bounded below and local ones where it is not.
        minimum: the value there.
        bounded: whether f is bounded below.
        region: the part of the space worth looking at, a pair (low, high) an axis.
        reach: the largest entry of the start, at least 1.

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
        numbers = check_start(start)
        if len(numbers) != self.size:
            raise ConfigError(
                f"model.start has {len(numbers)} numbers, but this function takes {self.size}"
            )
        self.reach = max(1.0, *map(abs, numbers))
        self.w = nn.Parameter(torch.tensor(numbers, dtype=dtype or torch.get_default_dtype()))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return f(w) for each of n samples, [n, 1]."""
        # one output a sample, though all are the same: risks are means over samples
        return self.value(self.w).expand(len(x), 1)

    @property
    def minima(self) -> Tensor:
        """The known minimizers [k, d] in float64; k is 0 where there are none."""
        return torch.tensor(self.known, dtype=torch.float64).reshape(-1, self.size)

    def distance(self, w: Tensor) -> Tensor:
        """Compute the Euclidean distance [...] of points [..., d] from the nearest known minimizer.

        It is infinite where no minimizer is known.
        """
        # minimizers are known to double precision, and distances near them cancel in single
        points = w.detach().cpu().double().unsqueeze(-2)
        if not len(self.minima):
            return torch.full(points.shape[:-2], math.inf, dtype=torch.float64)
        return torch.linalg.vector_norm(points - self.minima, dim=-1).amin(-1)


class ScalableFunction(Function):
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
        super().__init__(repeat_start(start, dimension), dtype)

    @property
    def minima(self) -> Tensor:
        """The known minimizer, [1, d]."""
        return torch.full((1, self.size), self.entry, dtype=torch.float64)


def check_start(start: Any, key: str = "model.start") -> list[float]:
    """Return the start as floats.

    Args:
        start: a list of numbers.
        key: of the configuration, for messages.

    Raises:
        ConfigError: it is no list of finite numbers.
    """
    if not isinstance(start, Sequence) or isinstance(start, str) or not start:
        raise ConfigError(f"{key} must be a list of numbers, not {start!r}")
    top = torch.finfo(torch.float64).max  # from an infinite start no step leads back
    return [float(check_float(key, number, -top, top)) for number in start]


def repeat_start(start: list[float], size: int) -> list[float]:
    """Repeat the numbers of a start until there are enough.

    Args:
        start: w before the first step.
        size: number of variables.

    Returns:
        ``size`` numbers.

    Raises:
        ConfigError: there are more than that.

    >>> repeat_start([-1.2, 1.0], 5)
    [-1.2, 1.0, -1.2, 1.0, -1.2]
    """
    numbers = check_start(start)
    if len(numbers) > size:
        raise ConfigError(
            f"model.start has {len(numbers)} numbers, more than model.dimension={size}"
        )
    return [numbers[i % len(numbers)] for i in range(size)]


class Paraboloid(ScalableFunction):
    """f(w) = Σ wᵢ². Minimum 0 at the origin.

    >>> Paraboloid([1.0]).value(torch.tensor([3.0, 4.0]))
    tensor(25.)
    """

    minimum = 0.0

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        return w.square().sum(-1)


class Booth(Function):
    """f(x, y) = (x + 2y − 7)² + (2x + y − 5)². Minimum 0 at (1, 3); Hessian eigenvalues 2 and 18.

    Source: Jamil & Yang, "A Literature Survey of Benchmark Functions For Global Optimization
    Problems", Int. J. of Mathematical Modelling and Numerical Optimisation 4 (2013), no. 17.

    >>> Booth([0.0, 0.0]).value(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    tensor([74.,  0.])
    """

    known = ((1.0, 3.0),)
    minimum = 0.0
    region = ((-10.0, 10.0), (-10.0, 10.0))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return (x + 2 * y - 7).square() + (2 * x + y - 5).square()


class Rosenbrock(ScalableFunction):
    """f(w) = Σ 100 (wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)², i = 1 … d−1. Minimum 0 at (1, …, 1).

    The valley wᵢ₊₁ = wᵢ² is curved and flat along its floor; the Hessian's condition number at
    the minimum is about 2500 for d = 2. From d = 4 on there is a second, local minimum near
    (−1, 1, …, 1).

    Source: Rosenbrock, "An Automatic Method for Finding the Greatest or Least Value of a
    Function", The Computer Journal 3 (1960); the start (−1.2, 1) is his.

    >>> Rosenbrock([-1.2, 1.0]).value(torch.tensor([-1.2, 1.0]))
    tensor(24.2000)
    """

    least = 2
    entry = 1.0
    minimum = 0.0
    region = ((-2.0, 2.0), (-1.0, 3.0))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        first, second = w[..., :-1], w[..., 1:]
        return (100 * (second - first.square()).square() + (1 - first).square()).sum(-1)


class Himmelblau(Function):
    """f(x, y) = (x² + y − 11)² + (x + y² − 7)². Minimum 0 at four points, one a quadrant.

    Source: Himmelblau, *Applied Nonlinear Programming* (1972).

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
        """Return f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return (x.square() + y - 11).square() + (x + y.square() - 7).square()


class Beale(Function):
    """f(x, y) = (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)². Minimum 0 at (3, ½).

    Flat plateaus between steep walls. Source: Beale, "On an Iterative Method of Finding a Local
    Minimum of a Function of More than One Variable", Princeton technical report 25 (1958); the
    start (1, 1) is that of Moré, Garbow & Hillstrom, ACM TOMS 7 (1981), no. 5.

    >>> Beale([1.0, 1.0]).value(torch.tensor([[1.0, 1.0], [3.0, 0.5]]))
    tensor([14.2031,  0.0000])
    """

    known = ((3.0, 0.5),)
    minimum = 0.0
    region = ((-4.5, 4.5), (-4.5, 4.5))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        terms = ((1.5, 1), (2.25, 2), (2.625, 3))
        squares = [(target - x + x * y**power).square() for target, power in terms]
        return squares[0] + squares[1] + squares[2]


class Saddle(Function):
    """f(x, y) = x² − y². Stationary at the origin alone, with Hessian eigenvalues 2 and −2.

    Gradient descent gets away from the saddle as (1 + 2η)ᵗ times its first distance y from the
    axis, and not at all from y = 0.

    >>> Saddle([1.0, 0.01]).value(torch.tensor([2.0, 1.0]))
    tensor(3.)
    """

    bounded = False

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return x.square() - y.square()


class MonkeySaddle(Function):
    """f(x, y) = x³ − 3xy². Stationary at the origin alone, where the Hessian vanishes.

    Three valleys go down from it, two for the legs and one for the tail.

    >>> MonkeySaddle([1.0, 0.1]).value(torch.tensor([-1.0, 1.0]))
    tensor(2.)
    """

    bounded = False

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return x**3 - 3 * x * y.square()


class Cubic(Function):
    """f(x) = −x³ + 3x. A local minimum, −2 at −1, a local maximum, 2 at 1; below both for large x.

    From a start above 1 the descent has no end, and gradient descent leaves the finite numbers
    after a few steps.

    >>> Cubic([1.1]).value(torch.tensor([[-1.0], [1.0], [10.0]]))
    tensor([  -2.,    2., -970.])
    """

    size = 1
    known = ((-1.0,),)
    minimum = -2.0
    bounded = False
    region = ((-2.5, 2.5),)

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 1], of shape [...]."""
        x = w.squeeze(-1)
        return -(x**3) + 3 * x


class StyblinskiTang(ScalableFunction):
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
        """Return f at points [..., d], of shape [...]."""
        return 0.5 * (w**4 - 16 * w.square() + 5 * w).sum(-1)


class Rastrigin(ScalableFunction):
    """f(w) = Σ wᵢ² + 10 (1 − cos 2πwᵢ). Minimum 0 at the origin, a local one near every integer.

    Source: Rastrigin, *Systems of Extremal Control* (1974), in the form for d variables of
    Mühlenbein, Schomisch & Born, Parallel Computing 17 (1991).

    >>> Rastrigin([0.5]).value(torch.tensor([0.5, 0.0]))
    tensor(20.2500)
    """

    minimum = 0.0
    region = ((-5.12, 5.12), (-5.12, 5.12))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        return (w.square() + 10 * (1 - torch.cos(2 * math.pi * w))).sum(-1)


class Ackley(ScalableFunction):
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
        """Return f at points [..., d], of shape [...]."""
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
        """Return f at points [..., 2], of shape [...]."""
        x, y = w.unbind(-1)
        return torch.sin(x) * torch.sin(y)


class GaussianField(Function):
    """f(w) = √(2/m) Σ cos(kⱼᵀw + φⱼ), a random function whose values are jointly Gaussian.

    With kⱼ standard normal and φⱼ uniform it has mean 0 and covariance exp(−‖w − w′‖²/2), and is
    Gaussian as far as the m waves are many. Its minima are not known, and its maxima are as many.

    A field that is ``level`` has been made so that w = 0 is a critical point: its slope there times
    w exp(−‖w‖²/2) is taken off, which is conditioning on ∇f(0) = 0 and leaves ∇²f(0) as it is.

    Source: Rahimi & Recht, "Random Features for Large-Scale Kernel Machines" (2007), for the waves;
    Bray & Dean, "Statistics of Critical Points of Gaussian Fields on Large-Dimensional Spaces"
    (2007).

    Args:
        start: w before the first step; repeated until it has ``dimension`` entries.
        dimension: number of variables d.
        level: whether the field is to have no slope at the origin.
        waves: m.
        field: seed of the draw.
        dtype: of ``w`` and the waves; None for torch's default.

    Raises:
        ConfigError: a number out of range.

    >>> flat = GaussianField([0.0], dimension=3, level=True)
    >>> torch.autograd.functional.jacobian(flat.value, torch.zeros(3))
    tensor([0., 0., 0.])
    """

    directions: Tensor
    phases: Tensor

    def __init__(
        self,
        start: list[float],
        dimension: int = 2,
        level: bool = False,
        waves: int = 1000,
        field: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.size = check_int("model.dimension", dimension, 1)
        super().__init__(repeat_start(start, dimension), dtype)
        # waves are about six long
        self.region = ((-self.reach - 2, self.reach + 2),) * dimension
        self.level = level
        draw = named_generator(check_int("model.field", field, 0), "gaussian_field")
        shape = (check_int("model.waves", waves, 1), dimension)
        # in double precision, so that a field is the same whatever the weights' dtype
        # one draw for both, whose order is what a field's seed stands for
        directions = torch.randn(shape, generator=draw, dtype=torch.float64)
        phases = 2 * math.pi * torch.rand(waves, generator=draw, dtype=torch.float64)
        self.register_buffer("directions", directions.to(self.w.dtype))
        self.register_buffer("phases", phases.to(self.w.dtype))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        along = w @ self.directions.T
        waves = torch.cos(along + self.phases)
        if self.level:
            # wave by wave, so that at 0 the slopes cancel to the last bit
            bump = torch.exp(-0.5 * w.square().sum(-1, keepdim=True))
            waves = waves + torch.sin(self.phases) * along * bump
        return math.sqrt(2 / len(self.phases)) * waves.sum(-1)
