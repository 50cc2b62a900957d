"""Test functions that are convex: quadratics, sums of exponentials, softmax in small formats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from truerisk.core.checks import check_float, check_int
from truerisk.core.errors import ConfigError, suggest
from truerisk.model.functions import Function, Range, check_start, repeat_start


class QuadraticBowl(Function):
    """f(w) = ½ wᵀ H w with H = Q diag(λ) Qᵀ.

    Without a ``spectrum`` the eigenvalues run from 1/condition to 1 in equal ratios. Gradient
    descent with step η takes the coordinate along the eigenvector of λ to (1 − ηλ)ᵗ of its first
    value after t steps.

    With a negative λ there is no minimum; along an eigenvector of λ = 0 every point is one, and
    the distance is measured from the nearest.

    Source: Nocedal & Wright, *Numerical Optimization* (2006), §3.3; the rotation Q is drawn
    uniformly as in Mezzadri, "How to Generate Random Matrices from the Classical Compact Groups",
    Notices of the AMS 54 (2007).

    Args:
        start: w before the first step; repeated until it has ``dimension`` entries.
        dimension: number of variables d.
        condition: λmax/λmin, at least 1.
        spectrum: all d eigenvalues, in place of ``dimension`` and ``condition``.
        rotation: seed of Q; None for Q = I.
        dtype: of ``w`` and H; None for torch's default.

    Raises:
        ConfigError: a number out of range.

    >>> QuadraticBowl([2.0, 1.0], spectrum=[4.0, 0.5]).value(torch.tensor([2.0, 1.0]))
    tensor(8.2500)
    """

    hessian: Tensor

    def __init__(
        self,
        start: list[float],
        dimension: int = 2,
        condition: float = 10.0,
        spectrum: list[float] | None = None,
        rotation: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        values = make_spectrum(dimension, condition, spectrum)
        self.size = len(values)
        super().__init__(repeat_start(start, self.size), dtype)
        self.eigenvalues = values
        self.eigenvectors = rotation_matrix(self.size, rotation)
        hessian = (self.eigenvectors * values) @ self.eigenvectors.T
        self.register_buffer("hessian", hessian.to(self.w.dtype))
        self.bounded = bool((values >= 0).all())
        self.minimum = 0.0 if self.bounded else None
        self.region = square_region(self.w.detach())

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        return 0.5 * (w * (w @ self.hessian)).sum(-1)

    @property
    def minima(self) -> Tensor:
        """The origin, [1, d], unless an eigenvalue is negative."""
        return torch.zeros(int(self.bounded), self.size, dtype=torch.float64)

    def distance(self, w: Tensor) -> Tensor:
        """Compute the Euclidean distance [...] of points [..., d] from the nearest minimizer."""
        if not self.bounded:
            return super().distance(w)
        # along an eigenvector of 0 every point is a minimizer
        coordinates = w.detach().cpu().double() @ self.eigenvectors
        return torch.linalg.vector_norm(coordinates[..., self.eigenvalues > 0], dim=-1)


def make_spectrum(dimension: int, condition: float, spectrum: list[float] | None) -> Tensor:
    """Return the eigenvalues [d] in float64.

    Args:
        dimension: their number, in equal ratios from 1/condition to 1.
        condition: the largest over the smallest.
        spectrum: all of them, in place of both.

    Raises:
        ConfigError: a number is out of range, or the spectrum is empty.
    """
    if spectrum is not None:
        if not spectrum:
            raise ConfigError("model.spectrum is empty: give the eigenvalues, or null")
        top = torch.finfo(torch.float64).max
        numbers = [check_float("model.spectrum", number, -top, top) for number in spectrum]
        return torch.tensor(numbers, dtype=torch.float64)
    size = check_int("model.dimension", dimension)
    lowest = -math.log10(check_float("model.condition", condition, 1.0))
    if not math.isfinite(lowest):
        raise ConfigError("model.condition must be finite; for a flat direction give a spectrum")
    return torch.logspace(lowest, 0.0, size, dtype=torch.float64)


def rotation_matrix(size: int, seed: int | None) -> Tensor:
    """Draw an orthogonal matrix [d, d] in float64, uniform under rotations.

    Args:
        size: d.
        seed: of the draw; None for the identity.

    Raises:
        ConfigError: the seed is not a whole number.
    """
    if seed is None:
        return torch.eye(size, dtype=torch.float64)
    draw = torch.Generator().manual_seed(check_int("model.rotation", seed, 0))
    q, r = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    # Householder's Q is not uniform: the signs of R's diagonal make it so (Mezzadri 2007)
    return q * r.diagonal().sign()


def square_region(start: Tensor) -> Sequence[Range]:
    """Return a square around the origin that holds the start."""
    half = 1.3 * float(start.abs().max()) or 1.0
    return [(-half, half)] * 2


class Lessard(Function):
    """f(x) = 12.5 x² − 12 max(x − 1, 0)² + 12 max(x − 2, 0)². Minimum 0 at 0; 1 ≤ f″ ≤ 25.

    A parabola of curvature 25 that is nearly straight between 1 and 2. With the step length and
    momentum that are best for quadratics of these curvatures, heavy ball does not converge from
    3.07 … 3.46: it goes round and round three points.

    Source: Lessard, Recht & Packard, "Analysis and Design of Optimization Algorithms via Integral
    Quadratic Constraints", SIAM Journal on Optimization 26 (2016), eq. 4.11.

    >>> Lessard([3.3]).value(torch.tensor([[1.0], [2.0], [3.0]]))
    tensor([12.5000, 38.0000, 76.5000])
    """

    size = 1
    known = ((0.0,),)
    minimum = 0.0
    region = ((-4.0, 4.0),)

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 1], of shape [...]."""
        x = w.squeeze(-1)
        bent = (x - 2).relu().square() - (x - 1).relu().square()
        return 12.5 * x.square() + 12 * bent


class ExponentialSum(Function):
    """f(w) = e^(x + 3y − 0.1) + e^(x − 3y − 0.1) + e^(−x − 0.1) with (x, y) = T w.

    Minimum 2√2 e^(−0.1) at (x, y) = (−½ ln 2, 0), where the Hessian's eigenvalues are 2√2 e^(−0.1)
    and 9√2 e^(−0.1) for T = I.

    Source: Boyd & Vandenberghe, *Convex Optimization* (2004), eq. 9.20.

    Args:
        start: w before the first step, 2 numbers.
        change: the rows of T, a linear change of variables; None for T = I.
        dtype: of ``w`` and T; None for torch's default.

    Raises:
        ConfigError: T is not 2 × 2, or has no inverse.

    >>> ExponentialSum([0.0, 0.0], change=[[2.0, 0.0], [0.0, 1.0]]).minima.round(decimals=4)
    tensor([[-0.1733,  0.0000]], dtype=torch.float64)
    """

    change: Tensor
    minimum = 2 * math.sqrt(2) * math.exp(-0.1)
    region = ((-2.0, 2.0), (-2.0, 2.0))

    def __init__(
        self,
        start: list[float],
        change: list[list[float]] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(start, dtype)
        rows = [[1.0, 0.0], [0.0, 1.0]] if change is None else change
        self.register_buffer("change", check_square(rows, self.size).to(self.w.dtype))

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., 2], of shape [...]."""
        x, y = (w @ self.change.T).unbind(-1)
        return (x + 3 * y - 0.1).exp() + (x - 3 * y - 0.1).exp() + (-x - 0.1).exp()

    @property
    def minima(self) -> Tensor:
        """The minimizer T⁻¹ (−½ ln 2, 0), [1, 2]."""
        lowest = torch.tensor([-math.log(2) / 2, 0.0], dtype=torch.float64)
        return torch.linalg.solve(self.change.cpu().double(), lowest).unsqueeze(0)


def check_square(rows: list[list[float]], size: int) -> Tensor:
    """Return a matrix [d, d] in float64.

    Args:
        rows: its rows.
        size: d.

    Raises:
        ConfigError: they are others than d lists of d finite numbers, or depend on each other.
    """
    shapes = [len(row) if isinstance(row, Sequence) else 1 for row in rows]
    if shapes != [size] * size:
        raise ConfigError(f"model.change takes {size} rows of {size} numbers, not {rows!r}")
    matrix = torch.tensor([check_start(row, "model.change") for row in rows], dtype=torch.float64)
    if torch.linalg.matrix_rank(matrix) < size:
        raise ConfigError(f"model.change={rows!r} has no inverse: a change of variables needs one")
    return matrix


FORMATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
FORMS = ("naive", "shifted", "logits")


class SoftmaxLoss(Function):
    """f(w) = −log softmax(w)ₖ, every operation rounded to ``format``.

    | form    | softmax(w)ₖ                     | −log of it                         |
    |---------|---------------------------------|------------------------------------|
    | naive   | exp wₖ / Σ exp wⱼ               | inf or nan once an exp overflows   |
    | shifted | exp(wₖ − m) / Σ exp(wⱼ − m)     | inf once the k-th exp underflows   |
    | logits  |                                 | m − wₖ + log Σ exp(wⱼ − m): finite |

    with m = max w.

    Source: Goodfellow, Bengio & Courville, *Deep Learning* (2016), §4.1; Blanchard, Higham &
    Higham, "Accurately Computing the Log-Sum-Exp and Softmax Functions", IMA Journal of Numerical
    Analysis 41 (2021).

    Args:
        start: w before the first step, the logits.
        target: k, the class, counted from 0.
        form: naive, shifted or logits.
        format: float64, float32, bfloat16 or float16.
        dtype: of ``w``; None for torch's default.

    Raises:
        ConfigError: a name is not known, or there is no such class.

    >>> logits = torch.tensor([1000.0, 990.0, 980.0])
    >>> [SoftmaxLoss([0.0] * 3, 1, form).value(logits).item() for form in FORMS]
    [nan, 10.00004..., 10.00004...]
    """

    minimum = None
    region: Sequence[Range] = ((-10.0, 10.0), (-10.0, 10.0))

    def __init__(
        self,
        start: list[float],
        target: int = 0,
        form: str = "logits",
        format: str = "float32",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.size = len(check_start(start))  # any number of classes: set before it is checked
        super().__init__(start, dtype)
        for key, name, options in (("form", form, FORMS), ("format", format, FORMATS)):
            if name not in options:
                raise ConfigError(f"model.{key}={name}: {suggest(str(name), list(options))}")
        if check_int("model.target", target, 0) >= self.size:
            raise ConfigError(f"model.target={target}: the {self.size} classes count from 0")
        self.form = form
        self.format = FORMATS[format]
        self.target = target

    def value(self, w: Tensor) -> Tensor:
        """Return f at points [..., d], of shape [...]."""
        z = w.to(self.format)
        if self.form != "naive":
            z = shift_logits(z)
        exps = z.exp()
        if self.form == "logits":
            loss = exps.sum(-1).log() - z[..., self.target]
        else:
            loss = -(exps[..., self.target] / exps.sum(-1)).log()
        return loss.to(w.dtype)


def shift_logits(z: Tensor) -> Tensor:
    """Subtract the largest logit, which leaves the softmax as it is."""
    return z - z.amax(-1, keepdim=True)
