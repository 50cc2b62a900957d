"""Gradient descent with exact line search."""

from __future__ import annotations

from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float
from truerisk.optimizer.line_search import Line, LineSearch
from truerisk.optimizer.quadratic import vertex


class GDExact(LineSearch):
    """Gradient descent on the whole training set, as far as J falls: t = argmin J(w − t·∇J(w)).

    Where J is a parabola along the line, t = gᵀg / gᵀHg from two looks at it. Elsewhere a minimum
    is bracketed, from the last step's length outwards, and narrowed down by Brent's method. Where J
    does not fall, w stays. On a quadratic with condition number γ, J − J* shrinks by at least
    ((γ − 1)/(γ + 1))² a step, and by just that from the worst start.

    Source: Boyd & Vandenberghe, Convex Optimization (2004), §9.2–9.3; Brent, Algorithms for
    Minimization without Derivatives (1973), chapter 5, carried out by `scipy.optimize`.

    Args:
        params: parameters, in one group.
        lr: the first step length tried; later ones begin at the last step's.
        tolerance: relative accuracy of t where J is no parabola.
        max_step: longest step tried where J is no parabola: it may fall for ever.

    >>> import torch
    >>> w = torch.tensor([5.0, 1.0], requires_grad=True)
    >>> optimizer = GDExact([w])
    >>> def closure():
    ...     w.grad = None
    ...     loss = 0.5 * (w[0] ** 2 + 5 * w[1] ** 2)
    ...     loss.backward()
    ...     return loss
    >>> values = [optimizer.step(closure).item() for _ in range(3)]
    >>> [round(b / a, 4) for a, b in zip(values, values[1:])]  # (4/6)²
    [0.4444, 0.4444]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        tolerance: float = 1e-4,
        max_step: float = 1e4,
    ) -> None:
        check_float("optimizer.tolerance", tolerance, above=True)
        check_float("optimizer.max_step", max_step, above=True)
        super().__init__(params, lr, tolerance=tolerance, max_step=max_step)

    def search(self, line: Line) -> float:
        """The vertex of a parabola, or a minimum found by looking."""
        first = self.group["taken"] or self.group["lr"]
        t = vertex(line, first)
        if t is None:
            return lowest(line, first, self.group["tolerance"], self.group["max_step"])
        return t


def lowest(line: Line, first: float, tolerance: float, longest: float) -> float:
    """A local minimum of φ, not above φ(0); 0 where no decrease can be seen.

    >>> import math, torch
    >>> w = torch.tensor([0.0], dtype=torch.float64)
    >>> line = Line([w], [torch.ones_like(w)], lambda: w.exp() - 3 * w, value=1.0, slope=-2.0)
    >>> abs(lowest(line, 1.0, 1e-4, 10.0) - math.log(3)) < 1e-4
    True
    """
    found = bracket(line, first, longest)
    if len(found) < 3:
        return found[-1]
    from scipy.optimize import minimize_scalar

    seen: dict[float, float] = {0.0: line.start.value}

    def value(t: float) -> float:
        t = float(t)  # of scipy's own kind, which a checkpoint would not load
        if t not in seen:
            seen[t] = line.value(t)
        return seen[t]

    minimize_scalar(
        value, bracket=found, method="brent", options={"xtol": tolerance, "maxiter": 50}
    )
    return min(seen, key=lambda t: (seen[t], t))


def bracket(line: Line, first: float, longest: float) -> tuple[float, ...]:
    """(0, t, above) with φ(t) < φ(0) and φ(t) < φ(above); (t,) if φ falls or is flat from there."""
    t = min(first, longest)
    value, above = line.value(t), 0.0
    while not value < line.start.value:
        above, t = t, t / 4
        if not line.visible(t):
            return (0.0,)
        value = line.value(t)
    while not above and t < longest:
        beyond = min(2 * t, longest)
        further = line.value(beyond)
        if further == value:
            break
        if further > value:
            above = beyond
        else:
            t, value = beyond, further
    return (0.0, t, above) if above else (t,)
