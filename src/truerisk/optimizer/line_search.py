"""J along a line through the weights, and the optimizers that search it for a step length."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from truerisk.core.checks import check_float
from truerisk.core.errors import ConfigError
from truerisk.optimizer.needs import Needs
from truerisk.optimizer.shards import refuse_shards

Closure = Callable[..., Tensor]


class Probe(NamedTuple):
    """One look at the line: φ(t) and φ'(t)."""

    t: float
    value: float
    slope: float


class Line:
    """φ(t) = J(w + t·d), where w are the weights it is made at.

    Looking moves the weights; ``move`` puts them where the search ends. A value that is not finite
    counts as +∞: too far.

    Args:
        params: the parameters, all of them on the line.
        direction: d, a tensor for each parameter.
        closure: see ``LineSearch.step``.
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
        self.closure, self.look = closure, value_alone(closure)
        self.start = Probe(0.0, value, slope)
        self.origin = [p.clone() for p in params]
        self.rounding = torch.finfo(params[0].dtype).eps

    def move(self, t: float) -> None:
        """Set the weights to w + t·d; t = 0 gives w back to the bit."""
        to = torch._foreach_add(self.origin, self.direction, alpha=t) if t else self.origin
        torch._foreach_copy_(self.params, to)

    def value(self, t: float) -> float:
        """φ(t), by a forward pass."""
        self.move(t)
        return finite(self.look())

    def probe(self, t: float) -> Probe:
        """φ(t) and φ'(t); leaves ∇J(w + t·d) in ``.grad``."""
        self.move(t)
        with torch.enable_grad():
            value = finite(self.closure())
        return Probe(t, value, inner([gradient(p) for p in self.params], self.direction))

    def settle(self, search: Callable[[Line], float]) -> float:
        """Move to the step length that ``search`` finds, to w if it breaks off; returns it."""
        t = 0.0
        try:
            t = search(self) if self.start.slope < 0 else 0.0
        finally:
            self.move(t)
        return t

    def visible(self, t: float) -> bool:
        """Whether the decrease that φ'(0) promises at t is more than the rounding of φ(0)."""
        return -t * self.start.slope > self.rounding * abs(self.start.value)


class LineSearch(Optimizer):
    """An optimizer that finds its step length by evaluating J along a line.

    A subclass says in ``descend`` how it moves along which direction. The parameter group's
    ``taken`` is the length of the last step, zero where the search found no decrease and left the
    weights as they were.
    """

    needs = Needs(closure=True, clip=False, groups=False, scaler=False, full_batch=True)

    def __init__(self, params: Any, lr: float, **numbers: Any) -> None:
        check_float("optimizer.lr", lr, above=True)
        super().__init__(params, {"lr": lr, **numbers, "taken": 0.0})
        if len(self.param_groups) > 1:
            raise ConfigError("a line search takes one parameter group: set param_groups=all")
        self.group = self.param_groups[0]
        refuse_shards(type(self).__name__, self.group["params"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
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
        self.group["taken"] = self.descend(params, closure, value.item()) if params else 0.0
        return value

    def descend(self, params: list[Tensor], closure: Closure, value: float) -> float:
        """Move the weights from where ``.grad`` is ∇J; returns the step length, 0 for no step."""
        return steepest(params, closure, value).settle(self.search)

    def search(self, line: Line) -> float:
        """The step length along a line that descends at first, 0 where J does not fall on it."""
        raise NotImplementedError


def steepest(params: list[Tensor], closure: Closure, value: float) -> Line:
    """The line along −∇J, which is in ``.grad``."""
    grads = [gradient(p).clone() for p in params]
    direction = list(torch._foreach_neg(grads))
    return Line(params, direction, closure, value, inner(grads, direction))


def gradient(p: Tensor) -> Tensor:
    """``p.grad``, where it is known to be there."""
    assert p.grad is not None
    return p.grad


def inner(a: Iterable[Tensor], b: Iterable[Tensor]) -> float:
    """Σ aᵀb over pairs of tensors.

    >>> inner([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.tensor([3.0])])
    5.0
    """
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum().item()


def finite(value: Tensor) -> float:
    """A scalar's number, +∞ where it is not finite."""
    number = value.item()
    return number if math.isfinite(number) else math.inf


def value_alone(closure: Closure) -> Callable[[], Tensor]:
    """A function that evaluates J, without the gradient where the closure can do so."""
    if "gradient" in inspect.signature(closure).parameters:
        return partial(closure, gradient=False)
    return torch.enable_grad()(closure)
