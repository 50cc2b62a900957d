"""Newton's method: the whole Hessian, conjugate gradients, and Gauss–Newton without a matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError, suggest
from truerisk.optimizer.conjugate_gradient import Path, minimize_by_cg, truncated_path
from truerisk.optimizer.line_search import OracleLine, finite_or_inf
from truerisk.optimizer.second_order import SecondOrderOptimizer, adapt_damping, reduction_ratio


class Newton(SecondOrderOptimizer):
    """Newton's method: w ← w + t·d with ``(H + τI) d = −∇J``, H = ∇²J(w).

    τ is the damping; where H + τI is not positive definite, d need not descend, and τ becomes
    larger: −λmin + 10⁻³·max|λ| (Nocedal & Wright 2006, §3.4). Where it is singular but for
    rounding, and J has no slope along its null space (as that of a softmax has none), d is the
    solution of least norm, with τ as it is. With ``saddle_free`` the step is instead
    ``d = −(|H| + τI)⁻¹ ∇J``, where |H| has the absolute values of H's eigenvalues: it moves away
    from saddles, along negative curvature, by as much as towards minima (Dauphin et al. 2014, §4).
    Where H is zero, d = −∇J. t comes from backtracking. The linear algebra is done in double
    precision.

    With n parameters a step takes n Hessian-vector products, n² numbers and n³ operations.

    Args:
        params: parameters, in one group.
        lr: the first step length tried; 1 is Newton's own.
        damping: τ.
        saddle_free: follow |H|.
        line_search: backtrack until J falls (Armijo, α = 10⁻⁴, β = ½); otherwise t = lr.
        max_parameters: refuse to work on more.

    Raises:
        ConfigError: there are more parameters than ``max_parameters``, or several groups.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        damping: float = 0.0,
        saddle_free: bool = False,
        line_search: bool = True,
        max_parameters: int = 5000,
    ) -> None:
        check_float("optimizer.damping", damping)
        super().__init__(
            params, lr, damping=damping, saddle_free=saddle_free, line_search=line_search
        )
        count = sum(p.numel() for p in self.group["params"])
        if count > check_int("optimizer.max_parameters", max_parameters):
            raise ConfigError(
                f"optimizer=newton would store and factor a Hessian of {count} × {count} numbers: "
                f"optimizer.max_parameters is {max_parameters}; take optimizer=newton_cg, which "
                "needs no matrix, a smaller model, or raise it"
            )

    def descend(self, oracle: CurvatureOracle) -> None:
        """Move along the Newton direction."""
        group, line = (
            self.group,
            OracleLine(oracle, oracle.copy_weights(), self._newton_direction(oracle)),
        )
        t = group["lr"]
        if group["line_search"]:
            t = line.search(t)
        group["step_length"] = t
        oracle.set_weights(line.point + t * line.direction)

    def _newton_direction(self, oracle: CurvatureOracle) -> Tensor:
        gradient = oracle.gradient()
        solve = solve_positive_definite
        if self.group["saddle_free"]:
            solve = solve_saddle_free
        # in double precision, but no more exact than the weights' own
        eps = torch.finfo(gradient.dtype).eps
        direction = -solve(
            _to_double(oracle.hessian()), _to_double(gradient), self.group["damping"], eps
        )
        return direction.to(gradient)


def _to_double(tensor: Tensor) -> Tensor:
    if tensor.device.type == "mps":
        tensor = tensor.cpu()  # Apple's GPU has no double precision
    return tensor.double()


def solve_positive_definite(
    hessian: Tensor, gradient: Tensor, damping: float, eps: float | None = None
) -> Tensor:
    """Return (H + τI)⁻¹ g, with τ large enough for a positive definite matrix.

    Where H + τI with the least τ is semidefinite, and g lies in its range, this is (H + τI)⁺ g, the
    solution of least norm, with no larger τ.

    Args:
        hessian: H [p, p].
        gradient: g [p].
        damping: the least τ.
        eps: relative rounding of the numbers that H was computed from; by default of its own type.

    >>> solve_positive_definite(torch.tensor([[2.0]]), torch.tensor([4.0]), 0.0)
    tensor([2.])
    >>> flat = torch.diag(torch.tensor([2.0, 0.0]))
    >>> solve_positive_definite(flat, torch.tensor([4.0, 0.0]), 0.0)
    tensor([2., 0.])
    """
    eps, n = eps or torch.finfo(hessian.dtype).eps, len(hessian)
    shifted = hessian + damping * torch.eye(n).to(hessian)
    # Cholesky is the cheapest test of definiteness; eigenvalues only where it fails
    factor, failed = torch.linalg.cholesky_ex(shifted)
    small = max(10.0, math.sqrt(n)) * eps
    # a singular matrix passes by rounding as often as not
    if not failed and estimate_least_eigenvalue(factor) > 10 * small * shifted.norm():
        return torch.cholesky_solve(gradient.unsqueeze(1), factor).squeeze(1)
    values, vectors = torch.linalg.eigh(hessian)
    damped, parts = values + damping, vectors.T @ gradient
    rounding = small * values.abs().max()
    null = damped.abs() <= rounding
    is_steep = parts[null].norm() > math.sqrt(eps) * parts.norm()
    if damped.min() >= -rounding and not null.all() and not is_steep:
        return vectors @ torch.where(null, 0, parts / damped.masked_fill(null, 1))
    tau = max(damping, (1e-3 * values.abs().max() - values.min()).item())
    return _apply_inverse(values + tau, vectors, gradient)


def estimate_least_eigenvalue(factor: Tensor) -> Tensor:
    """Estimate the least eigenvalue of a positive definite matrix from above, by inverse iteration.

    Args:
        factor: its Cholesky factor [p, p].

    >>> estimate_least_eigenvalue(torch.diag(torch.tensor([2.0, 1e-3]))).item()  # its square
    1.0000001111620804e-06
    """
    # on no axis, and in no subspace that anybody has thought of
    vector = torch.arange(1.0, len(factor) + 1).square().cos().to(factor).unsqueeze(1)
    vector /= vector.norm()
    for _ in range(3):
        vector = torch.cholesky_solve(vector / vector.norm(), factor)
    return 1 / vector.norm()


def solve_saddle_free(
    hessian: Tensor, gradient: Tensor, damping: float, eps: float | None = None
) -> Tensor:
    """Return (|H| + τI)⁻¹ g.

    Args:
        hessian: H [p, p].
        gradient: g [p].
        damping: τ.
        eps: relative rounding of the numbers that H was computed from; by default of its own type.

    >>> solve_saddle_free(torch.tensor([[2.0, 0.0], [0.0, -4.0]]), torch.tensor([2.0, -4.0]), 0.0)
    tensor([ 1., -1.])
    """
    values, vectors = torch.linalg.eigh(hessian)
    return _apply_inverse(values.abs() + damping, vectors, gradient, eps)


def _apply_inverse(
    values: Tensor, vectors: Tensor, gradient: Tensor, eps: float | None = None
) -> Tensor:
    """V diag(λ)⁻¹ Vᵀ g; eigenvalues that are zero but for rounding count as that rounding.

    Where all of them are zero, as those of a piecewise linear J, the answer is g.

    >>> _apply_inverse(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0]))
    tensor([3., 4.])
    """
    largest = values.max()
    if not largest > 0:
        return gradient
    least = 10 * (eps or torch.finfo(values.dtype).eps) * largest
    return vectors @ ((vectors.T @ gradient) / values.clamp_min(least))


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
        # a warm start: the curvature changes little from one step to the next
        start = DECAY * self.memory.get("previous", torch.zeros_like(gradient))

        def product(vector: Tensor) -> Tensor:
            return oracle.gauss_newton_product(vector) + damping * vector

        found = minimize_by_cg(product, gradient, start, self.group["max_iter"])
        # the first iterates, near the last step, may lead uphill, where no step length would do
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
