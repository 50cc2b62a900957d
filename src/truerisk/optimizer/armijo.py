"""Backtracking to a step that decreases J enough."""

from __future__ import annotations

from truerisk.core.errors import ConfigError
from truerisk.optimizer.line_search import Line

SHORTEST = 1e-16
"""A search gives up at this share of the first step."""


def backtrack(line: Line, first: float, alpha: float, beta: float) -> float:
    """The first t of first, β·first, β²·first, … with φ(t) ≤ φ(0) + α t φ'(0) (Armijo 1966).

    Returns 0 where there is none before the decrease that the slope promises drowns in the rounding
    of J. Source: Boyd & Vandenberghe 2004, algorithm 9.2.

    >>> import torch
    >>> w = torch.tensor([2.0])
    >>> line = Line([w], [torch.tensor([-4.0])], lambda: (w**2).sum(), value=4.0, slope=-16.0)
    >>> backtrack(line, 2.0, 0.3, 0.5)  # J(2 − 4·2) = 36, J(2 − 4·1) = 4, J(2 − 4·½) = 0
    0.5
    """
    start, t = line.start, first
    while line.visible(t) and t >= SHORTEST * first:
        if line.value(t) <= start.value + alpha * t * start.slope:
            return t
        t *= beta
    return 0.0


def check_armijo(alpha: float, beta: float, most: float = 0.5) -> None:
    """Refuse an α outside (0, most), and a β with which backtracking does not end.

    >>> check_armijo(0.3, 1.0)
    Traceback (most recent call last):
        ...
    truerisk.core.errors.ConfigError: optimizer.beta must be between 0 and 1, not 1.0
    """
    for name, value, high in (("alpha", alpha, most), ("beta", beta, 1)):
        if not 0 < value < high:
            raise ConfigError(f"optimizer.{name} must be between 0 and {high:g}, not {value!r}")
