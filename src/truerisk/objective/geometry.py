"""What J looks like around w: along directions, on planes, and as far as it can rise nearby."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.objective.local_objective import (
    LocalObjective,
    ParameterSpace,
    gradient,
    value_and_gradient,
)
from truerisk.objective.operators import HessianOperator, SymmetricOperator


def filter_normalized_directions(
    space: ParameterSpace, w: Tensor, count: int = 2, seed: int = 0
) -> Tensor:
    """Draw random directions whose filters are as long as those of w.

    ``d_ij ← d_ij / ‖d_ij‖ · ‖w_ij‖`` for filter j of layer i, a row of a parameter of two or more
    dimensions (Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, §4): what
    is seen along them does not change when a layer is multiplied by a number and the next divided
    by it. Biases and the vectors of normalization layers stay, as in the authors' code. Where all
    parameters are vectors, each counts as one filter; one of length 0 counts as of length 1.

    Before they are scaled the directions are orthogonal.

    Args:
        space: which weights belong to which parameter.
        w: the weights [p].
        count: directions.
        seed: of the directions.

    Returns:
        [p, count].

    >>> w = torch.tensor([3.0, 4.0, 0.0, 0.0, 7.0])
    >>> space = ParameterSpace({"weight": torch.ones(2, 2), "bias": torch.ones(1)})
    >>> d = filter_normalized_directions(space, w)
    >>> d[:2].norm(dim=0), d[2:].abs().max()
    (tensor([5., 5.]), tensor(0.))
    """
    draw = rng.named_generator(seed, "directions")
    noise = torch.randn(space.size, count, generator=draw, dtype=torch.float64)
    noise = torch.linalg.qr(noise).Q.to(w)
    vectors = all(len(shape) < 2 for shape in space.shapes.values())
    parts = space.named(w).values()
    directions = [space.named(d).values() for d in noise.T]
    scaled = [
        [_scale_filters(d, p, vectors) for d, p in zip(ds, parts, strict=True)] for ds in directions
    ]
    names = list(space.shapes)
    return torch.stack([space.flat(dict(zip(names, ds, strict=True))) for ds in scaled], 1)


def _scale_filters(d: Tensor, p: Tensor, vectors: bool) -> Tensor:
    """Scale a direction for one parameter to the lengths of its filters."""
    if p.ndim < 2 and not vectors:
        return torch.zeros_like(d)
    rows, sizes = (t.reshape(len(p) if p.ndim > 1 else 1, -1) for t in (d, p))
    length = sizes.norm(dim=1, keepdim=True)
    if vectors:
        length = torch.where(length > 0, length, 1)
    size = rows.norm(dim=1, keepdim=True)
    return (rows / torch.where(size > 0, size, 1) * length).view_as(d)


class PrincipalDirections(NamedTuple):
    """The principal directions of a path: unit vectors [p, 2], and their shares of its variance.

    ``at`` [n, 2] are the path's points along them, measured from its last one.
    """

    axes: Tensor
    at: Tensor
    share: Tensor


def principal_directions(path: Tensor) -> PrincipalDirections:
    """Find the two directions in which the points [n, p] of a path vary most.

    The right singular vectors of the centred points, as in Li et al. (2018), §7, who draw the plane
    through the last point. A path on a line has a second direction of share 0. Directions point
    from the last point to the first.

    Raises:
        ValueError: fewer than two points, or only one weight.

    >>> found = principal_directions(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    >>> found.at[0].tolist(), found.share.tolist()
    ([2.0, 0.0], [1.0, 0.0])
    """
    if min(path.shape) < 2:
        raise ValueError(f"{path.shape[0]} points of {path.shape[1]} weights span no plane")
    # differences of late points are small beside the points themselves
    points = path.double()
    sizes, vectors = torch.linalg.svd(points - points.mean(0), full_matrices=False)[1:]
    axes = vectors[:2].T
    at = (points - points[-1]) @ axes
    # a singular vector's sign is arbitrary, and may differ between machines
    sign = torch.where(at[0] < 0, -1.0, 1.0).double()
    share = sizes.square() / sizes.square().sum().clamp(min=torch.finfo(torch.double).tiny)
    return PrincipalDirections((axes * sign).to(path), (at * sign).to(path), share[:2])


def evaluate_line(point: LocalObjective, direction: Tensor, at: Sequence[float] | Tensor) -> Tensor:
    """Evaluate ``J(w + t d)`` for each t.

    Args:
        point: w and the samples.
        direction: d [p].
        at: n numbers t.

    Returns:
        J, [n].
    """
    return torch.stack([point.move_to(point.w + float(t) * direction).value() for t in at])


def evaluate_plane(
    point: LocalObjective,
    directions: Tensor,
    x: Sequence[float] | Tensor,
    y: Sequence[float] | Tensor,
) -> Tensor:
    """Evaluate ``J(w + x d₁ + y d₂)`` for all x and y.

    Args:
        point: w and the samples.
        directions: d [p, 2].
        x: steps along d₁.
        y: steps along d₂.

    Returns:
        J, [len(y), len(x)].
    """
    first, second = directions.unbind(1)
    rows = [evaluate_line(point.move_to(point.w + float(t) * second), first, x) for t in y]
    return torch.stack(rows)


class TaylorPolynomial(NamedTuple):
    """``J(w + t s) ≈ J + t ∇Jᵀs + ½ t² sᵀ∇²J s``, with its three coefficients.

    ``slope`` and ``curvature`` are ∇Jᵀs and sᵀ∇²J s, for s as it was given.

    >>> import torch
    >>> along = TaylorPolynomial(torch.tensor(1.0), torch.tensor(-2.0), torch.tensor(4.0))
    >>> along.first(0.5).item(), along.second(0.5).item()
    (0.0, 0.5)
    """

    value: Tensor
    slope: Tensor
    curvature: Tensor

    def first(self, t: float = 1.0) -> Tensor:
        """Return J + t ∇Jᵀs: the prediction to first order, off by O(t²)."""
        return self.value + t * self.slope

    def second(self, t: float = 1.0) -> Tensor:
        """Return J + t ∇Jᵀs + ½ t² sᵀ∇²J s: the prediction to second order, off by O(t³)."""
        return self.first(t) + 0.5 * t**2 * self.curvature


def taylor_polynomial(
    point: LocalObjective, step: Tensor, curvature: SymmetricOperator | None = None
) -> TaylorPolynomial:
    """Predict J along a step, to second order; two passes over the data.

    Args:
        point: w and the samples.
        step: s [p].
        curvature: in place of the Hessian; with the Gauss–Newton matrix it is that method's model.
    """
    value, gradient = value_and_gradient(point)
    image = (HessianOperator(point) if curvature is None else curvature) @ step
    return TaylorPolynomial(value, gradient @ step, step @ image)


def optimal_step_size(
    point: LocalObjective,
    direction: Tensor | None = None,
    curvature: SymmetricOperator | None = None,
) -> float:
    """Return the step length that minimises the second-order model of J along a direction d.

    ``α* = −gᵀd / dᵀHd``, and ``gᵀg / gᵀHg`` for the steepest descent d = −g (Cauchy 1847). Infinite
    where the model has no minimum along d (dᵀHd ≤ 0 and J falls), nan where J is level (gᵀd = 0),
    and negative where d leads uphill.

    Args:
        point: w and the samples.
        direction: d [p]; −g by default.
        curvature: in place of the Hessian, such as the Gauss–Newton matrix.
    """
    g = gradient(point)
    d = -g if direction is None else direction
    h = HessianOperator(point) if curvature is None else curvature
    slope, bend = float(g @ d), float(d @ (h @ d))
    if slope == 0:
        return math.nan
    if not bend > 0:  # nan too
        return math.copysign(math.inf, -slope)
    return -slope / bend


class ObjectiveRise(NamedTuple):
    """J at w, and the most it was found to rise by nearby."""

    value: float
    rise: float

    @property
    def percent(self) -> float:
        """``100 · rise / (1 + J)``, the form of Keskar et al. (nan where J ≤ −1)."""
        if self.value <= -1:
            return np.nan
        return 100 * self.rise / (1 + self.value)


def box_sharpness(
    point: LocalObjective, epsilon: float = 1e-3, iterations: int = 10, seed: int = 0
) -> ObjectiveRise:
    """Measure the ε-sharpness: how much J rises in a box around w.

    ``max J(w + y) − J(w)`` over ``|yᵢ| ≤ ε(|wᵢ| + 1)``; with `Rise.percent` the measure of Keskar
    et al., "On Large-Batch Training for Deep Learning", ICLR 2017, metric 2.1, for A = I. As there,
    the maximum is sought by some iterations of L-BFGS-B, so that the answer is a lower bound. It
    starts at a random point of the box, as at a minimum the gradient points nowhere.

    Args:
        point: w and the samples.
        epsilon: half the width of the box around a weight of 0; they take 1e-3 and 5e-4.
        iterations: of L-BFGS-B, of one or a few gradients each; they take 10.
        seed: of the start.
    """
    from scipy.optimize import Bounds, minimize

    half = epsilon * (point.w.double().abs() + 1).cpu()
    draw = rng.named_generator(seed, "box")
    start = half * (2 * torch.rand(len(half), generator=draw, dtype=torch.float64) - 1)

    def negative_rise(y: np.ndarray) -> tuple[float, np.ndarray]:
        moved = point.move_to(point.w + torch.from_numpy(y).to(point.w))
        value, slope = value_and_gradient(moved)
        return -float(value), -slope.double().cpu().numpy()

    found = minimize(
        negative_rise, start.numpy(), jac=True, method="L-BFGS-B",
        bounds=Bounds(-half.numpy(), half.numpy()), options={"maxiter": iterations},
    )  # fmt: skip
    value = float(point.value())
    return ObjectiveRise(value, max(0.0, -float(found.fun) - value))


def ball_sharpness(point: LocalObjective, rho: float = 0.05) -> ObjectiveRise:
    """Measure how much J rises by the step that sharpness-aware minimization takes uphill.

    ``J(w + ρ g/‖g‖) − J(w)`` with g = ∇J(w): to first order the most J can rise in a ball of radius
    ρ (Foret et al., "Sharpness-Aware Minimization", ICLR 2021, eq. 2). 0 where g = 0.

    Args:
        point: w and the samples.
        rho: ρ.
    """
    value, slope = value_and_gradient(point)
    size = slope.norm()
    uphill: Tensor = slope * (rho / size) if size > 0 else torch.zeros_like(slope)
    return ObjectiveRise(float(value), float(point.move_to(point.w + uphill).value() - value))
