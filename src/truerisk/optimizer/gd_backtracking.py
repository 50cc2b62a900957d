"""Gradient descent with Armijo backtracking."""

from __future__ import annotations

from torch.optim.optimizer import ParamsT

from truerisk.optimizer.armijo import backtrack, check_armijo
from truerisk.optimizer.line_search import Line, LineSearch


class GDBacktracking(LineSearch):
    """Gradient descent on the whole training set, w ← w − t·∇J(w), with t found by backtracking.

    t is the first of lr, β·lr, β²·lr, … that decreases J enough:

        J(w − t ∇J) ≤ J(w) − α t ‖∇J‖²

    Where none does, w stays. Source: Boyd & Vandenberghe, Convex Optimization (2004), §9.2–9.3.

    Args:
        params: parameters, in one group.
        lr: the first step length tried, in every step.
        alpha: α, the share of the decrease promised by the gradient that is asked for.
        beta: β, the factor by which a step that is too long shrinks.

    Raises:
        ConfigError: ``alpha`` is not in (0, ½) or ``beta`` not in (0, 1).

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = GDBacktracking([w], lr=1.0, alpha=0.3, beta=0.5)
    >>> def closure():
    ...     w.grad = None
    ...     loss = (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), w.item()  # t = 1 leads to −1, t = ½ to the minimum
    (1.0, 0.0)
    """

    def __init__(
        self, params: ParamsT, lr: float = 1.0, alpha: float = 0.3, beta: float = 0.5
    ) -> None:
        check_armijo(alpha, beta)
        super().__init__(params, lr, alpha=alpha, beta=beta)

    def search(self, line: Line) -> float:
        """Backtrack from ``lr``."""
        group = self.group
        return backtrack(line, group["lr"], group["alpha"], group["beta"])
