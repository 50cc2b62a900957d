"""L-BFGS with Armijo backtracking."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_int
from truerisk.core.flat_vectors import flatten_tensors, split_vector
from truerisk.optimizer.line_search import (
    Closure,
    ClosureLine,
    LineSearchOptimizer,
    backtrack,
    check_armijo,
    known_gradient,
)

Pairs = list[tuple[Tensor, Tensor]]
"""Steps s = Δw and gradient changes y = Δ∇J, as vectors, oldest first."""


class LBFGSBacktracking(LineSearchOptimizer):
    """L-BFGS on the whole training set, one quasi-Newton step at a time: w ← w − t·H∇J(w).

    H approximates the inverse Hessian from the last m pairs s = Δw, y = Δ∇J, both from within one
    step, where J is one function. t is the first of lr, β·lr, β²·lr, … with

        J(w − t H∇J) ≤ J(w) − α t ∇Jᵀ H ∇J.

    Backtracking alone does not see to yᵀs > 0, which keeps H positive definite: a pair in which
    yᵀs is not clearly positive is left out (Li & Fukushima 2001). Where no t will do, the pairs are
    forgotten and −∇J is tried; where that fails too, w stays. The first step of all is not longer
    than lr.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5.

    Args:
        params: parameters, in one group.
        lr: the first step length tried, in every step; 1 is Newton's.
        history_size: pairs kept, m.
        alpha: α, the share of the decrease promised by the gradient that is asked for.
        beta: β, the factor by which a step that is too long shrinks.

    >>> w = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    >>> optimizer = LBFGSBacktracking([w])
    >>> def rosenbrock():
    ...     w.grad = None
    ...     loss = (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> values = [optimizer.step(rosenbrock).item() for _ in range(50)]
    >>> values[0], values[-1] < 1e-20
    (24.199999999999996, True)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        history_size: int = 10,
        alpha: float = 1e-4,
        beta: float = 0.5,
    ) -> None:
        check_int("optimizer.history_size", history_size)
        check_armijo(alpha, beta)
        super().__init__(params, lr, history_size=history_size, alpha=alpha, beta=beta)

    def search(self, line: ClosureLine) -> float:
        """Backtrack from ``lr``."""
        group = self.group
        return backtrack(line, group["lr"], group["alpha"], group["beta"])

    def descend(self, params: list[Tensor], closure: Closure, value: float) -> float:
        """Step along −H∇J, or along −∇J where that does not lower J, and learn from the step."""
        g = flatten_tensors(known_gradient(p) for p in params)
        memory = self.state[self.group["params"][0]]
        pairs = memory.setdefault("pairs", [])
        for d in descent_directions(g, pairs):
            line = ClosureLine(
                params, split_vector(d, params), closure, value, torch.dot(g, d).item()
            )
            t = line.settle(self.search)
            if t:
                # for ∇J at the new weights, on the samples of this step: y compares one function
                line.probe(t)
                remember_pair(pairs, t * d, flatten_tensors(known_gradient(p) for p in params) - g)
                memory["pairs"] = pairs[-self.group["history_size"] :]
                return t
            # pairs that lead uphill tell of another place
            pairs.clear()
        return 0.0


def descent_directions(g: Tensor, pairs: Pairs) -> Iterator[Tensor]:
    """Yield −Hg, if there are pairs to tell H; then −g, at most of length 1.

    Args:
        g: ∇J [p].
        pairs: oldest first; none may be.
    """
    if pairs:
        yield -two_loop_product(g, pairs)
    yield -g / g.norm().clamp_min(1.0)


def two_loop_product(g: Tensor, pairs: Pairs) -> Tensor:
    """Return Hg, with H from the pairs (s, y) and γ = sᵀy / yᵀy of the last one.

    Args:
        g: [p].
        pairs: at least one, oldest first.

    Source: Nocedal & Wright, algorithm 7.4.

    >>> g, s = torch.tensor([2.0, 5.0]), torch.tensor([1.0, 0.0])
    >>> two_loop_product(g, [(s, 2 * s)])  # the curvature along s is 2, supposed to be so elsewhere
    tensor([1.0000, 2.5000])
    """
    rates = [torch.dot(s, y) for s, y in pairs]
    shares, q = [], g.clone()
    for (s, y), rate in zip(reversed(pairs), reversed(rates), strict=True):
        shares.append(torch.dot(s, q) / rate)
        q -= shares[-1] * y
    q *= rates[-1] / torch.dot(pairs[-1][1], pairs[-1][1])
    for (s, y), rate, share in zip(pairs, rates, reversed(shares), strict=True):
        q += (share - torch.dot(y, q) / rate) * s
    return q


def remember_pair(pairs: Pairs, s: Tensor, y: Tensor) -> None:
    """Add a pair whose curvature yᵀs is clearly positive (Li & Fukushima 2001).

    Args:
        pairs: what it is added to.
        s: Δw [p].
        y: Δ∇J [p].
    """
    least = torch.finfo(s.dtype).eps ** 0.5
    if torch.dot(s, y) > least * s.norm() * y.norm():
        pairs.append((s, y))
