"""Gradient descent with steps that satisfy the strong Wolfe conditions."""

from __future__ import annotations

from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.optimizer.line_search import Line, LineSearch
from truerisk.optimizer.wolfe import StrongWolfe


class GDWolfe(LineSearch):
    """Gradient descent on the whole training set, w ← w − t·g with g = ∇J(w), where

        J(w − t g) ≤ J(w) − c₁ t ‖g‖²    and    |gᵀ∇J(w − t g)| ≤ c₂ ‖g‖²:

    enough decrease, and no longer steep. See ``truerisk.optimizer.wolfe.StrongWolfe`` for the
    search and for what it does where there is no such t.

    Source: Nocedal & Wright, Numerical Optimization (2006), §3.1 and §3.5.

    Args:
        params: parameters, in one group.
        lr: the first step length tried; later searches begin with the last step's.
        c1: c₁, the share of the decrease promised by the gradient that is asked for.
        c2: c₂, how much of the steepness may be left.
        max_step: longest step tried; J may fall for ever.

    Raises:
        ConfigError: 0 < c₁ < c₂ < 1 does not hold.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = GDWolfe([w], lr=0.01)
    >>> def closure():
    ...     w.grad = None
    ...     loss = (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), round(optimizer.group["taken"], 2)
    (1.0, 0.5)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        c1: float = 1e-4,
        c2: float = 0.1,
        max_step: float = 1e4,
    ) -> None:
        if not 0 < c1 < c2 < 1:
            raise ConfigError(
                f"optimizer.c1={c1!r} and optimizer.c2={c2!r}: 0 < c1 < c2 < 1 must hold"
            )
        check_float("optimizer.max_step", max_step, above=True)
        super().__init__(params, lr, c1=c1, c2=c2, max_step=max_step)

    def search(self, line: Line) -> float:
        """Search from the last step's length."""
        group = self.group
        search = StrongWolfe(group["c1"], group["c2"], group["max_step"])
        return search(line, group["taken"] or group["lr"])
