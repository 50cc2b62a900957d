"""J along a line through the weights, and searches on it for a step length."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from truerisk.core.checks import check_float
from truerisk.core.curvature_oracle import CurvatureOracle
from truerisk.core.errors import ConfigError
from truerisk.optimizer.needs import Needs, refuse_shards

Closure = Callable[..., Tensor]

MAX_PROBES = 30
"""Evaluations of J and ∇J after which a search for the Wolfe conditions makes do with its best."""


class Probe(NamedTuple):
    """φ and its derivative at one t."""

    t: float
    value: float
    slope: float


class SearchLine:
    """φ(t) = J(w + t·d), from the weights w along a direction d.

    Attributes:
        start: φ(0) and φ'(0) = ∇Jᵀd.
        slack: by how much φ may lie above what Armijo's condition asks for.
        shortest: the share of the first step at which backtracking gives up.
    """

    start: Probe
    slack = 0.0
    shortest = 1e-16

    def value(self, t: float) -> float:
        """Return φ(t), +∞ where it is not finite: too far."""
        raise NotImplementedError

    def is_visible(self, t: float) -> bool:
        """Tell whether the decrease that φ'(0) promises at t is more than the rounding of φ(0)."""
        raise NotImplementedError


def backtrack(line: SearchLine, first: float, alpha: float, beta: float) -> float:
    """Find the first t of first, β·first, β²·first, … with φ(t) ≤ φ(0) + α t φ'(0) (Armijo 1966).

    Args:
        line: φ, on which J descends at first.
        first: the longest step length tried.
        alpha: α, the share of the promised decrease that is asked for.
        beta: β, the factor by which a step that is too long shrinks.

    Returns:
        t; 0 where there is none before the promised decrease drowns in the rounding of J.

    Source: Boyd & Vandenberghe, Convex Optimization (2004), algorithm 9.2.

    >>> w = torch.tensor([2.0])
    >>> line = ClosureLine([w], [torch.tensor([-4.0])], lambda: (w**2).sum(), 4.0, -16.0)
    >>> backtrack(line, 2.0, 0.3, 0.5)  # J(2 − 4·2) = 36, J(2 − 4·1) = 4, J(2 − 4·½) = 0
    0.5
    """
    start, t = line.start, first
    while line.is_visible(t) and t >= line.shortest * first:
        if line.value(t) <= start.value + line.slack + alpha * t * start.slope:
            return t
        t *= beta
    return 0.0


def check_armijo(alpha: float, beta: float, most: float = 0.5) -> None:
    """Refuse an α outside (0, most), and a β with which backtracking does not end.

    Args:
        alpha: α.
        beta: β.
        most: what α has to be below.

    Raises:
        ConfigError: α is not in (0, most) or β not in (0, 1).

    >>> check_armijo(0.3, 1.0)
    Traceback (most recent call last):
        ...
    truerisk.core.errors.ConfigError: optimizer.beta must be between 0 and 1, not 1.0
    """
    for name, value, high in (("alpha", alpha, most), ("beta", beta, 1)):
        if not 0 < value < high:
            raise ConfigError(f"optimizer.{name} must be between 0 and {high:g}, not {value!r}")


class ClosureLine(SearchLine):
    """A line on which J is evaluated by the step's closure, at weights that move along.

    ``move`` puts the weights where the search ends.

    Args:
        params: the parameters, all of them on the line.
        direction: d, a tensor for each parameter.
        closure: see ``LineSearchOptimizer.step``.
        value: φ(0).
        slope: φ'(0) = ∇Jᵀd.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        direction: Sequence[Tensor],
        closure: Closure,
        value: float,
        slope: float,
    ) -> None:
        self.params, self.direction = list(params), list(direction)
        self.closure, self.evaluate = closure, without_gradient(closure)
        self.start = Probe(0.0, value, slope)
        self.origin = [p.clone() for p in params]
        self.eps = torch.finfo(params[0].dtype).eps

    def move(self, t: float) -> None:
        """Set the weights to w + t·d."""
        # from w each time, as steps added to each other would round
        to = self.origin
        if t:  # t = 0 gives w back to the bit, where 0·d may be nan
            to = list(torch._foreach_add(self.origin, self.direction, alpha=t))
        torch._foreach_copy_(self.params, to)

    def value(self, t: float) -> float:
        """Return φ(t), by a forward pass; moves the weights."""
        self.move(t)
        return finite_or_inf(self.evaluate())

    def probe(self, t: float) -> Probe:
        """Return φ(t) and φ'(t); moves the weights and leaves ∇J(w + t·d) in ``.grad``."""
        self.move(t)
        with torch.enable_grad():
            value = finite_or_inf(self.closure())
        return Probe(t, value, inner([known_gradient(p) for p in self.params], self.direction))

    def settle(self, search: Callable[[ClosureLine], float]) -> float:
        """Move to the step length that ``search`` finds, to w if it breaks off; return it."""
        t = 0.0
        try:
            # false for nan as well, where there is no descent to search along
            if self.start.slope < 0:
                t = search(self)
        finally:
            self.move(t)
        return t

    def is_visible(self, t: float) -> bool:
        """Tell whether the decrease that φ'(0) promises at t is more than the rounding of φ(0)."""
        return -t * self.start.slope > self.eps * abs(self.start.value)


class OracleLine(SearchLine):
    """A line on which J is evaluated by a `CurvatureOracle`, which takes any weights.

    Armijo's condition holds up to the rounding of J: a last Newton step gains less than that, and
    is to be taken.

    Args:
        oracle: J on the step's samples.
        point: w [p].
        direction: d [p].
    """

    shortest = 1e-10

    def __init__(self, oracle: CurvatureOracle, point: Tensor, direction: Tensor) -> None:
        self.oracle, self.point, self.direction = oracle, point, direction

    @cached_property
    def start(self) -> Probe:  # type: ignore[override]
        """φ(0) and φ'(0) = ∇Jᵀd."""
        slope = torch.dot(self.oracle.gradient(), self.direction).item()
        return Probe(0.0, self.oracle.value().item(), slope)

    @property
    def slack(self) -> float:  # type: ignore[override]
        """By how much two equal values of J may differ."""
        return rounding(self.oracle.value())

    def value(self, t: float) -> float:
        """Return φ(t), +∞ where it is not finite."""
        return finite_or_inf(self.oracle.value(self.point + t * self.direction))

    def is_visible(self, t: float) -> bool:
        """Tell whether d descends at all."""
        return self.start.slope < 0

    def search(self, first: float) -> float:
        """Backtrack from ``first`` with α = 10⁻⁴ and β = ½."""
        return backtrack(self, first, alpha=1e-4, beta=0.5)


class LineSearchOptimizer(Optimizer):
    """An optimizer that finds its step length by evaluating J along a line.

    A subclass says in ``descend`` how it moves along which direction. The parameter group's
    ``step_length`` is the length of the last step, zero where the search found no decrease and left
    the weights as they were.

    Args:
        params: parameters, in one group.
        lr: the first step length tried.
        numbers: other hyperparameters, by name.

    Raises:
        ConfigError: ``lr`` is not positive, there are several groups, or parameters are in parts.
    """

    needs = Needs(
        closure=True, clip=False, groups=False, scaler=False, full_batch=True, projection=False
    )

    def __init__(self, params: Any, lr: float, **numbers: Any) -> None:
        check_float("optimizer.lr", lr, above=True)
        super().__init__(params, {"lr": lr, **numbers, "step_length": 0.0})
        if len(self.param_groups) > 1:
            raise ConfigError("a line search takes one parameter group: set param_groups=all")
        self.group = self.param_groups[0]
        refuse_shards(type(self).__name__, self.group["params"])

    # torch calls this from `load_state_dict`, too
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        rename_step_length(self.param_groups)
        self.group = self.param_groups[0]

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take one step; returns J from before it.

        Args:
            closure: evaluates J on the same samples with the same noise at every call, leaves ∇J in
                ``.grad`` in place of what was there and returns J. If it has an argument
                ``gradient``, it is called with ``gradient=False`` where J alone is of interest.
        """
        with torch.enable_grad():
            value = closure()
        params = [p for p in self.group["params"] if p.grad is not None]
        step_length = 0.0
        if params:
            # only now is the last one forgotten: searches begin with it
            step_length = self.descend(params, closure, value.item())
        self.group["step_length"] = step_length
        return value

    def descend(self, params: list[Tensor], closure: Closure, value: float) -> float:
        """Move the weights along a line, by default −∇J.

        Args:
            params: parameters that have a gradient, which is ∇J.
            closure: see ``step``.
            value: J.

        Returns:
            The step length, 0 for no step.
        """
        return steepest_descent(params, closure, value).settle(self.search)

    def search(self, line: ClosureLine) -> float:
        """Return the step length along a line that descends at first, 0 where J does not fall."""
        raise NotImplementedError


def steepest_descent(params: list[Tensor], closure: Closure, value: float) -> ClosureLine:
    """Return the line along −∇J, which is in ``.grad``.

    Args:
        params: parameters that have a gradient.
        closure: evaluates J.
        value: J at the parameters.
    """
    grads = [known_gradient(p).clone() for p in params]
    direction = list(torch._foreach_neg(grads))
    return ClosureLine(params, direction, closure, value, inner(grads, direction))


def known_gradient(p: Tensor) -> Tensor:
    """Return ``p.grad``, where it is known to be there."""
    assert p.grad is not None
    return p.grad


def inner(a: Iterable[Tensor], b: Iterable[Tensor]) -> float:
    """Return Σ aᵀb over pairs of tensors.

    Args:
        a: tensors.
        b: as many, of the same shapes.

    >>> inner([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.tensor([3.0])])
    5.0
    """
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum().item()


def finite_or_inf(value: Tensor) -> float:
    """Return a scalar's number, +∞ where it is not finite."""
    number = value.item()
    if math.isfinite(number):
        return number
    return math.inf


def without_gradient(closure: Closure) -> Callable[[], Tensor]:
    """Return a function that evaluates J, without the gradient where the closure can do so."""
    if "gradient" in inspect.signature(closure).parameters:
        return partial(closure, gradient=False)
    return torch.enable_grad()(closure)


def rounding(value: Tensor) -> float:
    """Return by how much two equal values of J may differ.

    >>> rounding(torch.tensor(1.0, dtype=torch.float64)) < 1e-15
    True
    """
    return 4 * torch.finfo(value.dtype).eps * abs(value.item())


def rename_step_length(groups: Iterable[dict[str, Any]]) -> None:
    """Take up the state of earlier versions, which called the last step length ``taken``."""
    for group in groups:
        if "taken" in group:
            group["step_length"] = group.pop("taken")


class StrongWolfe:
    """Finds t with enough decrease, and at a point where φ has become flat enough:

        φ(t) ≤ φ(0) + c₁ t φ'(0)    and    |φ'(t)| ≤ c₂ |φ'(0)|

    Where φ falls up to ``longest``, or rounding hides such a point, the lowest point seen that
    satisfies the first condition is taken, and t = 0 if there is none.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6, with cubic
    interpolation (eq. 3.59).

    >>> w = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    >>> def closure():
    ...     w.grad = None
    ...     loss = (w**4 - w).sum()
    ...     loss.backward()
    ...     return loss
    >>> with torch.no_grad():
    ...     line = ClosureLine([w], [torch.ones_like(w)], closure, 0, -1)
    ...     t = StrongWolfe(c1=1e-4, c2=0.01)(line, 1.0)
    >>> abs(4 * t**3 - 1) < 0.01
    True
    """

    def __init__(self, c1: float, c2: float, longest: float = math.inf) -> None:
        self.c1, self.c2, self.longest = c1, c2, longest

    def __call__(self, line: ClosureLine, first: float) -> float:
        """Double the step until an interval holds what is looked for, then narrow it down."""
        self.line, self.probes = line, 0
        low, t = line.start, min(first, self.longest)
        while self.probes < MAX_PROBES:
            probe = self._probe(t)
            if not self._decreases_enough(probe) or probe.value >= low.value:
                return self._narrow_down(low, probe)
            if self._is_flat(probe):
                return t
            if probe.slope >= 0:
                return self._narrow_down(probe, low)
            if t >= self.longest:
                return t
            low, t = probe, min(2 * t, self.longest)
        return low.t

    def _narrow_down(self, low: Probe, high: Probe) -> float:
        """Narrow down an interval of which ``low`` is the lowest point with enough decrease."""
        while self.probes < MAX_PROBES and self._is_apart(low.t, high.t):
            probe = self._probe(minimize_cubic(low, high))
            if not self._decreases_enough(probe) or probe.value >= low.value:
                high = probe
                continue
            if self._is_flat(probe):
                return probe.t
            if probe.slope * (high.t - low.t) >= 0:
                high = low
            low = probe
        return low.t

    def _is_apart(self, a: float, b: float) -> bool:
        """Whether there is anything between two step lengths that rounding can tell from them."""
        visible = self.line.is_visible(max(a, b))
        return visible and abs(a - b) > self.line.eps * max(a, b)

    def _probe(self, t: float) -> Probe:
        self.probes += 1
        return self.line.probe(t)

    def _decreases_enough(self, probe: Probe) -> bool:
        start = self.line.start
        return probe.value <= start.value + self.c1 * probe.t * start.slope

    def _is_flat(self, probe: Probe) -> bool:
        return abs(probe.slope) <= -self.c2 * self.line.start.slope


def minimize_cubic(a: Probe, b: Probe) -> float:
    """Return the minimum of the cubic through two values and slopes, kept in the inner 80 %.

    The middle, where there is no such minimum or a value is not finite.

    Args:
        a: one end.
        b: the other.

    >>> minimize_cubic(Probe(0.0, 1.0, -2.0), Probe(3.0, 4.0, 4.0))  # (t − 1)²
    1.0
    """
    middle, width = (a.t + b.t) / 2, abs(b.t - a.t)
    if not math.isfinite(b.value) or not math.isfinite(b.slope):
        return middle
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    d2 = math.copysign(math.sqrt(max(square, 0.0)), b.t - a.t)
    below = b.slope - a.slope + 2 * d2
    if square < 0 or below == 0:
        return middle
    t = b.t - (b.t - a.t) * (b.slope + d2 - d1) / below
    return min(max(t, middle - 0.4 * width), middle + 0.4 * width)
