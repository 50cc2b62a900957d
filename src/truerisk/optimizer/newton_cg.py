"""Newton's method by conjugate gradients."""

from __future__ import annotations

import math

from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError, suggest
from truerisk.optimizer.conjugate_gradient import Path, truncated_path
from truerisk.optimizer.line_search import OracleLine, finite_or_inf
from truerisk.optimizer.second_order import SecondOrderOptimizer, reduction_ratio

METHODS = ("trust_region", "line_search")
ACCEPT = 1e-4
"""A trial step is taken if J falls by this share of what the model predicts."""

SHORTEST = 1e-10
"""A trial step that is this share of the weights is the last one tried."""


class NewtonCG(SecondOrderOptimizer):
    """Truncated Newton: conjugate gradients on ``m(p) = ∇Jᵀp + ½ pᵀ∇²J p``, without a matrix.

    They end when the residual has shrunk by ``min(½, ‖∇J‖^½)``, which makes convergence superlinear
    (Dembo, Eisenstat & Steihaug 1982), or at a direction of negative curvature, and then

    * ``trust_region``: p is the path's end, or the point where it leaves the ball of radius Δ;
      along negative curvature it always does (Steihaug 1983). With the ratio of the real change to
      the model's, ``ρ = (J(w + p) − J(w)) / m(p)``, Δ becomes ‖p‖/4 where ρ < ¼, and twice as large
      where ρ > ¾ for a p on the edge; a step that gains too little (ρ < 10⁻⁴) is tried again with
      the smaller Δ (Nocedal & Wright 2006, algorithm 4.1). The present Δ is the parameter group's
      ``radius``.
    * ``line_search``: p is the last iterate before negative curvature, or −∇J; its length is
      backtracked from ``lr`` (ibid., algorithm 7.1).

    Args:
        params: parameters, in one group.
        lr: multiplies the step (trust region), or is the first length tried (line search).
        method: ``trust_region`` or ``line_search``.
        radius: the first Δ.
        max_radius: the largest.
        max_iter: Hessian-vector products in one step.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        method: str = "trust_region",
        radius: float = 1.0,
        max_radius: float = 100.0,
        max_iter: int = 100,
    ) -> None:
        if method not in METHODS:
            raise ConfigError(f"optimizer.method={method} is not known; {suggest(method, METHODS)}")
        check_float("optimizer.max_radius", max_radius, above=True)
        super().__init__(
            params,
            lr,
            method=method,
            radius=check_float("optimizer.radius", radius, 0, max_radius, above=True),
            max_radius=max_radius,
            max_iter=check_int("optimizer.max_iter", max_iter),
        )

    def descend(self, oracle: CurvatureOracle) -> None:
        """Move by the step that conjugate gradients find."""
        group, gradient = self.group, oracle.gradient()
        size = gradient.norm().item()
        if size == 0:
            group["step_length"] = 0.0
            return
        trusting = group["method"] == "trust_region"
        radius = group["radius"] if trusting else math.inf
        tolerance = size * min(0.5, math.sqrt(size))
        path = truncated_path(
            oracle.hessian_product, gradient, tolerance, group["max_iter"], radius
        )
        if trusting:
            self._step_trusted(oracle, path)
        else:
            self._step_searched(oracle, path)

    def _step_trusted(self, oracle: CurvatureOracle, path: Path) -> None:
        group, start, point = self.group, oracle.value(), oracle.copy_weights()
        least = SHORTEST * max(point.norm().item(), SHORTEST)
        while True:
            trial = path.leave_ball(group["radius"])
            end = finite_or_inf(oracle.value(point + trial.step))
            ratio, size = reduction_ratio(start, end, trial.predicted), trial.step.norm().item()
            radius = resize_radius(group["radius"], ratio, size, trial.on_edge)
            group["radius"] = min(radius, group["max_radius"])
            if ratio > ACCEPT or size <= least:
                break
        group["step_length"] = group["lr"] if ratio > ACCEPT else 0.0
        oracle.set_weights(point + group["step_length"] * trial.step)

    def _step_searched(self, oracle: CurvatureOracle, path: Path) -> None:
        line = OracleLine(oracle, oracle.copy_weights(), path.end_before_negative())
        self.group["step_length"] = t = line.search(self.group["lr"])
        oracle.set_weights(line.point + t * line.direction)


def resize_radius(radius: float, ratio: float, size: float, on_edge: bool) -> float:
    """Return the next Δ, but for its upper bound.

    Args:
        radius: Δ.
        ratio: ρ, the change of J over that of the model.
        size: ‖p‖ of the trial step.
        on_edge: whether the radius cut it short.

    Source: Nocedal & Wright 2006, algorithm 4.1.

    >>> resize_radius(1.0, 0.1, 0.8, False), resize_radius(1.0, 0.9, 1.0, True)
    (0.2, 2.0)
    >>> resize_radius(1.0, 0.9, 0.8, False)
    1.0
    """
    if ratio < 0.25:
        return size / 4
    # inside the ball the radius was no limit, however good the model
    if ratio > 0.75 and on_edge:
        return 2 * radius
    return radius
