"""Newton's method with the whole Hessian."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float, check_int
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError
from truerisk.optimizer.line_search import OracleLine
from truerisk.optimizer.second_order import SecondOrderOptimizer


class Newton(SecondOrderOptimizer):
    """Newton's method: w ← w + t·d with ``(H + τI) d = −∇J``, H = ∇²J(w).

    τ is the damping; where H + τI is not positive definite, d need not descend, and τ becomes
    larger: −λmin + 10⁻³·max|λ| (Nocedal & Wright 2006, §3.4). With ``saddle_free`` the step is
    instead ``d = −(|H| + τI)⁻¹ ∇J``, where |H| has the absolute values of H's eigenvalues: it moves
    away from saddles, along negative curvature, by as much as towards minima (Dauphin et al. 2014,
    §4). Where H is zero, d = −∇J. t comes from backtracking. The linear algebra is done in double
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
        direction = -solve(
            _to_double(oracle.hessian()), _to_double(gradient), self.group["damping"]
        )
        return direction.to(gradient)


def _to_double(tensor: Tensor) -> Tensor:
    if tensor.device.type == "mps":
        tensor = tensor.cpu()  # Apple's GPU has no double precision
    return tensor.double()


def solve_positive_definite(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Return (H + τI)⁻¹ g, with τ large enough for a positive definite matrix.

    Args:
        hessian: H [p, p].
        gradient: g [p].
        damping: the least τ.

    >>> solve_positive_definite(torch.tensor([[2.0]]), torch.tensor([4.0]), 0.0)
    tensor([2.])
    """
    shifted = hessian + damping * torch.eye(len(hessian)).to(hessian)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if not failed:
        return torch.cholesky_solve(gradient.unsqueeze(1), factor).squeeze(1)
    values, vectors = torch.linalg.eigh(hessian)
    tau = max(damping, (1e-3 * values.abs().max() - values.min()).item())
    return _apply_inverse(values + tau, vectors, gradient)


def solve_saddle_free(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Return (|H| + τI)⁻¹ g.

    Args:
        hessian: H [p, p].
        gradient: g [p].
        damping: τ.

    >>> solve_saddle_free(torch.tensor([[2.0, 0.0], [0.0, -4.0]]), torch.tensor([2.0, -4.0]), 0.0)
    tensor([ 1., -1.])
    """
    values, vectors = torch.linalg.eigh(hessian)
    return _apply_inverse(values.abs() + damping, vectors, gradient)


def _apply_inverse(values: Tensor, vectors: Tensor, gradient: Tensor) -> Tensor:
    """V diag(λ)⁻¹ Vᵀ g; eigenvalues that are zero but for rounding count as that rounding.

    Where all of them are zero, as those of a piecewise linear J, the answer is g.

    >>> _apply_inverse(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0]))
    tensor([3., 4.])
    """
    largest = values.max()
    if not largest > 0:
        return gradient
    least = 10 * torch.finfo(values.dtype).eps * largest
    return vectors @ ((vectors.T @ gradient) / values.clamp_min(least))
