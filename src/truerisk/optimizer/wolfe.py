"""Step lengths that satisfy the strong Wolfe conditions."""

from __future__ import annotations

import math

from truerisk.optimizer.line_search import Line, Probe

LOOKS = 30
"""Evaluations of J and ∇J after which a search makes do with what it has."""


class StrongWolfe:
    """Finds t with enough decrease, and at a point where φ has become flat enough:

        φ(t) ≤ φ(0) + c₁ t φ'(0)    and    |φ'(t)| ≤ c₂ |φ'(0)|

    Where φ falls up to ``longest``, or rounding hides such a point, the lowest point seen that
    satisfies the first condition is taken, and t = 0 if there is none.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6, with cubic
    interpolation (eq. 3.59).

    >>> import torch
    >>> w = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    >>> def closure():
    ...     w.grad = None
    ...     loss = (w**4 - w).sum()
    ...     loss.backward()
    ...     return loss
    >>> with torch.no_grad():
    ...     t = StrongWolfe(c1=1e-4, c2=0.01)(Line([w], [torch.ones_like(w)], closure, 0, -1), 1.0)
    >>> abs(4 * t**3 - 1) < 0.01
    True
    """

    def __init__(self, c1: float, c2: float, longest: float = math.inf) -> None:
        self.c1, self.c2, self.longest = c1, c2, longest

    def __call__(self, line: Line, first: float) -> float:
        """Double the step until an interval holds what is looked for, then narrow it down."""
        self.line, self.looks = line, 0
        low, t = line.start, min(first, self.longest)
        while self.looks < LOOKS:
            probe = self._look(t)
            if not self._decreases(probe) or probe.value >= low.value:
                return self._zoom(low, probe)
            if self._flat(probe):
                return t
            if probe.slope >= 0:
                return self._zoom(probe, low)
            if t >= self.longest:
                return t
            low, t = probe, min(2 * t, self.longest)
        return low.t

    def _zoom(self, low: Probe, high: Probe) -> float:
        """Narrow down an interval of which ``low`` is the lowest point with enough decrease."""
        while self.looks < LOOKS and self._apart(low.t, high.t):
            probe = self._look(between(low, high))
            if not self._decreases(probe) or probe.value >= low.value:
                high = probe
                continue
            if self._flat(probe):
                return probe.t
            if probe.slope * (high.t - low.t) >= 0:
                high = low
            low = probe
        return low.t

    def _apart(self, a: float, b: float) -> bool:
        """Whether there is anything between two step lengths that rounding can tell from them."""
        visible = self.line.visible(max(a, b))
        return visible and abs(a - b) > self.line.rounding * max(a, b)

    def _look(self, t: float) -> Probe:
        self.looks += 1
        return self.line.probe(t)

    def _decreases(self, probe: Probe) -> bool:
        start = self.line.start
        return probe.value <= start.value + self.c1 * probe.t * start.slope

    def _flat(self, probe: Probe) -> bool:
        return abs(probe.slope) <= -self.c2 * self.line.start.slope


def between(a: Probe, b: Probe) -> float:
    """The minimum of the cubic through two values and slopes, kept in the inner 80 %.

    The middle, where there is no such minimum or a value is not finite.

    >>> between(Probe(0.0, 1.0, -2.0), Probe(3.0, 4.0, 4.0))  # (t − 1)²
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
