"""Gradient descent with a fixed step length, and with one that is searched for in every step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch.optim import SGD
from torch.optim.optimizer import ParamsT

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.optimizer.line_search import (
    ClosureLine,
    LineSearchOptimizer,
    Probe,
    StrongWolfe,
    backtrack,
    check_armijo,
)
from truerisk.optimizer.needs import Needs

RESETS = ("grow", "keep", "max")


class GD(SGD):
    """Gradient descent on the whole training set, w ← w − lr·(∇J(w) + λw).

    The step of SGD without momentum; declares that mini-batches would make it something else.
    Source: Cauchy (1847).

    Args:
        params: parameters or parameter groups.
        lr: step length.
        weight_decay: coupled L2, λ.

    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = GD([w], lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 6)
    0.8
    """

    needs = Needs(full_batch=True)

    def __init__(self, params: ParamsT, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)


class PerturbedGD(GD):
    """Gradient descent with normal noise in every step, w ← w − lr·(∇J(w) + λw + noise·ξ).

    It leaves every saddle, also where the gradient vanishes. There is no option of its name: take
    ``optimizer=custom optimizer._target_=truerisk.optimizer.PerturbedGD``.

    Source: Ge, Huang, Jin & Yuan, "Escaping From Saddle Points" (COLT 2015), algorithm 1, with a
    normal ξ.

    Args:
        params: parameters or parameter groups.
        lr: step length.
        noise: standard deviation of the noise, an entry.
        weight_decay: coupled L2, λ.
    """

    def __init__(
        self, params: ParamsT, lr: float = 0.1, noise: float = 0.01, weight_decay: float = 0.0
    ) -> None:
        self.noise = check_float("optimizer.noise", noise)
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Compute the gradient, and take a step along it and the noise."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                # into the gradient, so that the step's length scales it as it does ∇J
                if p.grad is not None:
                    p.grad.add_(torch.randn_like(p), alpha=self.noise)
        # without the closure, which would compute the gradient anew
        super().step()
        return loss


class GDBacktracking(LineSearchOptimizer):
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

    def search(self, line: ClosureLine) -> float:
        """Backtrack from ``lr``."""
        group = self.group
        return backtrack(line, group["lr"], group["alpha"], group["beta"])


class GDExact(LineSearchOptimizer):
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

    def search(self, line: ClosureLine) -> float:
        """The vertex of a parabola, or a minimum found by looking."""
        first = self.group["step_length"] or self.group["lr"]
        t = find_vertex(line, first)
        if t is None:
            return minimize_on_line(line, first, self.group["tolerance"], self.group["max_step"])
        return t


def minimize_on_line(line: ClosureLine, first: float, tolerance: float, longest: float) -> float:
    """Find a local minimum of φ, not above φ(0); 0 where no decrease can be seen.

    Args:
        line: φ.
        first: the first step length tried.
        tolerance: relative accuracy of t.
        longest: the longest one tried.

    >>> import math, torch
    >>> w = torch.tensor([0.0], dtype=torch.float64)
    >>> line = ClosureLine([w], [torch.ones_like(w)], lambda: w.exp() - 3 * w, 1.0, -2.0)
    >>> abs(minimize_on_line(line, 1.0, 1e-4, 10.0) - math.log(3)) < 1e-4
    True
    """
    found = bracket_minimum(line, first, longest)
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


def bracket_minimum(line: ClosureLine, first: float, longest: float) -> tuple[float, ...]:
    """Bracket a minimum: (0, t, above) with φ(t) < φ(0) and φ(t) < φ(above).

    Args:
        line: φ.
        first: the first step length tried.
        longest: the longest one tried.

    Returns:
        The three; (t,) alone where φ falls or is flat from there.
    """
    t = min(first, longest)
    value, above = line.value(t), 0.0
    while not value < line.start.value:
        above, t = t, t / 4
        if not line.is_visible(t):
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
    if above:
        return (0.0, t, above)
    return (t,)


def find_vertex(line: ClosureLine, first: float) -> float | None:
    """Return t = gᵀd / dᵀHd, where two looks agree that φ is a parabola; None elsewhere.

    0 where rounding has it that φ does not fall at all.

    The slope at ``first`` gives the curvature, dᵀHd = (φ'(first) − φ'(0)) / first, which loses less
    to rounding than a difference of values. The values at ``first`` and at the vertex then have
    to be those of the parabola, to half the digits of the weights' precision.

    Args:
        line: φ.
        first: where to look first.

    >>> import torch
    >>> w = torch.tensor([2.0], requires_grad=True)
    >>> def closure():
    ...     w.grad = None
    ...     loss = 5 * (w**2).sum()
    ...     loss.backward()
    ...     return loss
    >>> with torch.no_grad():
    ...     find_vertex(ClosureLine([w], [torch.tensor([-20.0])], closure, 20.0, -400.0), first=1.0)
    0.1
    """
    end = line.probe(first)
    curvature = (end.slope - line.start.slope) / first
    if not (_is_on_parabola(line, end, curvature) and curvature > 0):
        return None
    t = -line.start.slope / curvature
    value = line.value(t)
    if not _is_on_parabola(line, Probe(t, value, math.nan), curvature):
        return None
    if value <= line.start.value:
        return t
    return 0.0


def _is_on_parabola(line: ClosureLine, probe: Probe, curvature: float) -> bool:
    """Whether a value is that of φ(0) + φ'(0) t + ½ dᵀHd t²."""
    t, start = probe.t, line.start
    expected = start.value + t * start.slope + 0.5 * t**2 * curvature
    rounding = 4 * line.eps * (abs(start.value) + abs(probe.value))
    error = math.sqrt(line.eps) * abs(t * start.slope)
    return math.isfinite(expected) and abs(probe.value - expected) <= error + rounding


class GDWolfe(LineSearchOptimizer):
    """Gradient descent on the whole training set, w ← w − t·g with g = ∇J(w), where

        J(w − t g) ≤ J(w) − c₁ t ‖g‖²    and    |gᵀ∇J(w − t g)| ≤ c₂ ‖g‖²:

    enough decrease, and no longer steep. See ``truerisk.optimizer.line_search.StrongWolfe`` for the
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
    >>> optimizer.step(closure).item(), round(optimizer.group["step_length"], 2)
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

    def search(self, line: ClosureLine) -> float:
        """Search from the last step's length."""
        group = self.group
        search = StrongWolfe(group["c1"], group["c2"], group["max_step"])
        return search(line, group["step_length"] or group["lr"])


class SGDArmijo(LineSearchOptimizer):
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

    needs = replace(LineSearchOptimizer.needs, full_batch=False)

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

    def search(self, line: ClosureLine) -> float:
        """Backtrack from where the reset rule says."""
        group = self.group
        t = backtrack(line, self._first_step(), group["alpha"], group["beta"])
        group["last"] = t or group["last"]
        return t

    def _first_step(self) -> float:
        group = self.group
        if group["last"] is None or group["reset"] == "max":
            return group["lr"]
        growth = {"grow": group["growth"], "keep": 1.0}[group["reset"]]
        return min(group["lr"], growth * group["last"])
