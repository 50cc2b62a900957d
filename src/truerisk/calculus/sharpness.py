"""How much J can rise near w."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from truerisk.calculus.gradient import value_and_gradient
from truerisk.calculus.point import Point
from truerisk.core import rng


class Rise(NamedTuple):
    """J at w, and the most it was found to rise by nearby."""

    value: float
    rise: float

    @property
    def percent(self) -> float:
        """``100 · rise / (1 + J)``, the form of Keskar et al. (nan where J ≤ −1)."""
        return 100 * self.rise / (1 + self.value) if self.value > -1 else np.nan


def box_sharpness(point: Point, epsilon: float = 1e-3, iterations: int = 10, seed: int = 0) -> Rise:
    """The ε-sharpness: how much J rises in a box around w.

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

    def falling(y: np.ndarray) -> tuple[float, np.ndarray]:
        moved = point.moved(point.w + torch.from_numpy(y).to(point.w))
        value, slope = value_and_gradient(moved)
        return -float(value), -slope.double().cpu().numpy()

    found = minimize(
        falling, start.numpy(), jac=True, method="L-BFGS-B",
        bounds=Bounds(-half.numpy(), half.numpy()), options={"maxiter": iterations},
    )  # fmt: skip
    value = float(point.value())
    return Rise(value, max(0.0, -float(found.fun) - value))


def ball_sharpness(point: Point, rho: float = 0.05) -> Rise:
    """How much J rises by the step that sharpness-aware minimization takes uphill.

    ``J(w + ρ g/‖g‖) − J(w)`` with g = ∇J(w): to first order the most J can rise in a ball of radius
    ρ (Foret et al., "Sharpness-Aware Minimization", ICLR 2021, eq. 2). 0 where g = 0.
    """
    value, slope = value_and_gradient(point)
    size = slope.norm()
    uphill: Tensor = slope * (rho / size) if size > 0 else torch.zeros_like(slope)
    return Rise(float(value), float(point.moved(point.w + uphill).value() - value))
