"""Gauss–Newton with Levenberg–Marquardt damping, without a matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.optimizer.conjugate_gradient import minimize_by_cg
from truerisk.optimizer.line_search import OracleLine, finite_or_inf
from truerisk.optimizer.second_order import SecondOrderOptimizer, adapt_damping, reduction_ratio

DECAY = 0.95
"""Conjugate gradients begin at this share of the last step (Martens 2010, §4.5)."""


class GaussNewton(SecondOrderOptimizer):
    """Hessian-free optimization (Martens 2010): ``(B + λI) p = −∇J`` by conjugate gradients.

    B is the Gauss–Newton matrix of the risk, ``1/n Σ J_fᵀ ∇²l J_f`` with the outputs' Jacobian J_f,
    plus the Hessian of the penalties. For losses that are convex in the outputs it has no negative
    eigenvalues; for those that are piecewise linear (hinge, mae) it is zero, and a step is one of
    gradient descent with length 1/λ.

    After each step, with ``ρ = (J(w + p) − J(w)) / (∇Jᵀp + ½ pᵀBp)``, λ grows by the factor
    ``rate`` where ρ < ¼ and shrinks by it where ρ > ¾ (Levenberg–Marquardt). The iterates of
    conjugate gradients are tried from the last one backwards while J falls, and should it not have
    fallen below J(w), the step is backtracked.

    Args:
        params: parameters, in one group.
        lr: the first step length tried; 1 is the method's own.
        damping: the first λ; the present one is the parameter group's ``damping``.
        rate: factor by which λ changes; 3/2 in the source.
        max_iter: products with B in one step.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        damping: float = 0.1,
        rate: float = 2.0,
        max_iter: int = 100,
    ) -> None:
        super().__init__(
            params,
            lr,
            damping=check_float("optimizer.damping", damping, above=True),
            rate=check_float("optimizer.rate", rate, 1, above=True),
            max_iter=check_int("optimizer.max_iter", max_iter),
        )

    def descend(self, oracle: CurvatureOracle) -> None:
        """Move by the damped Gauss–Newton step."""
        group, start, point = self.group, oracle.value(), oracle.copy_weights()
        step, end = self._choose_step(oracle, point, self._candidate_steps(oracle))
        predicted = torch.dot(
            step, oracle.gradient() + 0.5 * oracle.gauss_newton_product(step)
        ).item()
        ratio = reduction_ratio(start, end, predicted)
        group["damping"] = adapt_damping(group["damping"], ratio, group["rate"])
        line = OracleLine(oracle, point, step)
        group["step_length"] = t = line.search(group["lr"])
        self.memory["previous"] = t * step
        oracle.set_weights(point + t * step)

    def _candidate_steps(self, oracle: CurvatureOracle) -> list[Tensor]:
        gradient, damping = oracle.gradient(), self.group["damping"]
        start = DECAY * self.memory.get("previous", torch.zeros_like(gradient))

        def product(vector: Tensor) -> Tensor:
            return oracle.gauss_newton_product(vector) + damping * vector

        found = minimize_by_cg(product, gradient, start, self.group["max_iter"])
        falling = [p for p in found if torch.dot(p, gradient) < 0]
        return falling or [-gradient / damping]

    def _choose_step(
        self, oracle: CurvatureOracle, point: Tensor, iterates: list[Tensor]
    ) -> tuple[Tensor, float]:
        """An iterate and J there: the lowest, going back from the last one while it falls."""
        *earlier, best = iterates
        lowest = finite_or_inf(oracle.value(point + best))
        for step in reversed(earlier):
            value = finite_or_inf(oracle.value(point + step))
            if value >= lowest:
                break
            best, lowest = step, value
        return best, lowest
