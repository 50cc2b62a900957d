"""Newton's method by conjugate gradients."""

from __future__ import annotations

import math

from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError, suggest
from truerisk.optimizer.conjugate_gradient import Path, truncated_path
from truerisk.optimizer.second_order import Ray, SecondOrder, finite, reduction_ratio

METHODS = ("trust_region", "line_search")
ACCEPT = 1e-4
"""A trial step is taken if J falls by this share of what the model predicts."""

SHORTEST = 1e-10
"""A trial step that is this share of the weights is the last one tried."""


class NewtonCG(SecondOrder):
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

    def descend(self, problem: CurvatureOracle) -> None:
        """Move by the step that conjugate gradients find."""
        group, gradient = self.group, problem.gradient()
        size = gradient.norm().item()
        if size == 0:
            group["taken"] = 0.0
            return
        trusting = group["method"] == "trust_region"
        radius = group["radius"] if trusting else math.inf
        tolerance = size * min(0.5, math.sqrt(size))
        path = truncated_path(
            problem.hessian_product, gradient, tolerance, group["max_iter"], radius
        )
        self._trust(problem, path) if trusting else self._search(problem, path)

    def _trust(self, problem: CurvatureOracle, path: Path) -> None:
        group, start, point = self.group, problem.value(), problem.copy_weights()
        least = SHORTEST * max(point.norm().item(), SHORTEST)
        while True:
            trial = path.within(group["radius"])
            end = finite(problem.value(point + trial.step))
            ratio, size = reduction_ratio(start, end, trial.predicted), trial.step.norm().item()
            radius = resized(group["radius"], ratio, size, trial.on_edge)
            group["radius"] = min(radius, group["max_radius"])
            if ratio > ACCEPT or size <= least:
                break
        group["taken"] = group["lr"] if ratio > ACCEPT else 0.0
        problem.set_weights(point + group["taken"] * trial.step)

    def _search(self, problem: CurvatureOracle, path: Path) -> None:
        ray = Ray(problem, problem.copy_weights(), path.truncated())
        self.group["taken"] = t = ray.backtrack(self.group["lr"])
        problem.set_weights(ray.point + t * ray.direction)


def resized(radius: float, ratio: float, size: float, on_edge: bool) -> float:
    """The next Δ, but for its upper bound (Nocedal & Wright 2006, algorithm 4.1).

    >>> resized(1.0, 0.1, 0.8, False), resized(1.0, 0.9, 1.0, True), resized(1.0, 0.9, 0.8, False)
    (0.2, 2.0, 1.0)
    """
    if ratio < 0.25:
        return size / 4
    return 2 * radius if ratio > 0.75 and on_edge else radius
