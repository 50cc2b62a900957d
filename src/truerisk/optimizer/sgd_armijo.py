"""Stochastic gradient descent with a line search on each mini-batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.optimizer.armijo import backtrack, check_armijo
from truerisk.optimizer.line_search import Line, LineSearch

RESETS = ("grow", "keep", "max")


class SGDArmijo(LineSearch):
    """Stochastic gradient descent whose step length is found on the mini-batch itself.

    With J_b the objective on the step's batch, held fixed during the search, t is the first of
    t₀, β·t₀, β²·t₀, … with

        J_b(w − t ∇J_b) ≤ J_b(w) − α t ‖∇J_b‖²

    where t₀ follows from the last accepted t by ``reset``: ``grow`` takes growth·t, ``keep`` t
    itself, ``max`` the longest step, and none exceeds lr. It converges as fast as gradient descent
    where one predictor fits all samples (interpolation), and needs no step length to be tuned
    there.

    Source: Vaswani et al. 2019, "Painless Stochastic Gradient", algorithms 1 and 2. The paper's
    growth is 2^(1/batches in an epoch): a doubling an epoch.

    Args:
        params: parameters, in one group.
        lr: the longest step, and the first one tried.
        alpha: α, the share of the decrease promised by the gradient that is asked for.
        beta: β, the factor by which a step that is too long shrinks.
        reset: where a search begins.
        growth: factor on the last step's length, for ``grow``.

    Raises:
        ConfigError: a number is out of its range.
    """

    needs = replace(LineSearch.needs, full_batch=False)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        alpha: float = 0.1,
        beta: float = 0.9,
        reset: Literal["grow", "keep", "max"] = "grow",
        growth: float = 1.02,
    ) -> None:
        if reset not in RESETS:
            raise ConfigError(f"optimizer.reset must be one of {', '.join(RESETS)}, not {reset!r}")
        check_float("optimizer.growth", growth, 1.0)
        check_armijo(alpha, beta, most=1.0)
        super().__init__(params, lr, alpha=alpha, beta=beta, reset=reset, growth=growth, last=None)

    def search(self, line: Line) -> float:
        """Backtrack from where the reset rule says."""
        group = self.group
        t = backtrack(line, self._first(), group["alpha"], group["beta"])
        group["last"] = t or group["last"]
        return t

    def _first(self) -> float:
        group = self.group
        if group["last"] is None or group["reset"] == "max":
            return group["lr"]
        growth = group["growth"] if group["reset"] == "grow" else 1.0
        return min(group["lr"], growth * group["last"])
