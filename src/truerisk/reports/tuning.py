"""What a swept number does to the risk."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from truerisk.reports.crossfit import pick
from truerisk.reports.estimate import Estimate, estimate
from truerisk.reports.study import Problem, Recipe


class Point(NamedTuple):
    """A value of a swept number, at the best of all else that was swept with it."""

    at: float
    val: Estimate
    """nan where every run with this value diverged"""
    unseen: Estimate
    diverged: float
    """share of the runs with this value that diverged"""


def profile(problem: Problem, recipes: list[Recipe], key: str) -> list[Point]:
    """The risk against one number, at the best (on validation) of the others."""
    having = [recipe for recipe in recipes if key in recipe.numbers]
    values = sorted({recipe.numbers[key] for recipe in having})
    return [_point(problem, [r for r in having if r.numbers[key] == v], v) for v in values]


def _point(problem: Problem, recipes: list[Recipe], at: float) -> Point:
    best = pick(problem.matrix("risk/val", recipes))
    share = float(np.mean([recipe.diverged for recipe in recipes]))
    if best is None:
        return Point(at, estimate([]), estimate([]), share)
    series = (recipes[best].series(metric) for metric in ("risk/val", problem.unseen))
    val, unseen = (estimate(list(s.values())) for s in series)
    return Point(at, val, unseen, share)


def initial_risk(recipes: list[Recipe]) -> float:
    """The mean validation risk before training; nan where it was not measured."""
    curves = [run.curves["risk/val"] for r in recipes for run in r.runs if "risk/val" in run.curves]
    first = [curve.value[0] for curve in curves if curve.epoch[0] == 0]
    finite = [value for value in first if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def sensitivity(points: list[Point], initial: float) -> float:
    """The mean over the values tried of ``min(f, f₀) − f*`` (Wortsman et al. 2024, §2.2).

    f is the validation risk, f₀ that before training, f* the lowest; a value at which training
    diverges leaves f₀. The values count alike, so they should be spread evenly (on a log scale).

    >>> one = lambda at, risk: Point(at, estimate([risk]), estimate([risk]), 0.0)
    >>> sensitivity([one(0.1, 1.0), one(1.0, 3.0), one(10.0, math.nan)], initial=2.5)
    1.0
    """
    risks = np.array([point.val.mean for point in points])
    if not np.isfinite(risks).any() or not math.isfinite(initial):
        return math.nan
    risks = np.minimum(np.where(np.isfinite(risks), risks, initial), initial)
    return float(risks.mean() - risks.min())


class Grid(NamedTuple):
    """The lowest mean validation risk at each pair of two numbers' values; nan where none."""

    x: list[float]
    y: list[float]
    risk: np.ndarray
    """[y, x]"""


def grid(problem: Problem, recipes: list[Recipe], x: str, y: str) -> Grid | None:
    """The risk against two numbers; None unless half of the pairs of their values were tried.

    Numbers of many values are rounded to a few that are evenly spread.
    """
    having = [recipe for recipe in recipes if {x, y} <= set(recipe.numbers)]
    if not having:
        return None
    across, up = (rounded([recipe.numbers[key] for recipe in having]) for key in (x, y))
    xs, ys = sorted(set(across)), sorted(set(up))
    risk = np.full((len(ys), len(xs)), np.nan)
    tried = set(zip(across, up, strict=True))
    for a, b in tried:
        here = [r for r, *at in zip(having, across, up, strict=True) if at == [a, b]]
        risk[ys.index(b), xs.index(a)] = _point(problem, here, a).val.mean
    enough = min(len(xs), len(ys)) > 1 and 2 * len(tried) >= risk.size
    return Grid(xs, ys, risk) if enough and np.isfinite(risk).any() else None


def rounded(values: list[float], most: int = 12, bins: int = 6) -> list[float]:
    """The values, or where they are too many the middles of ``bins`` equal steps they lie in.

    Steps are equal in ratio where all values are positive and span more than a factor of 20.

    >>> rounded([1.0, 2.0, 1.0])
    [1.0, 2.0, 1.0]
    >>> rounded([1.0, 10.0, 100.0], most=2, bins=2)
    [3.16, 31.6, 31.6]
    """
    if len(set(values)) <= most:
        return values
    log = min(values) > 0 and max(values) > 20 * min(values)
    x = np.log(values) if log else np.array(values)
    edges = np.linspace(x.min(), x.max(), bins + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    at = middle[np.clip(np.digitize(x, edges) - 1, 0, bins - 1)]
    return [float(f"{v:.3g}") for v in (np.exp(at) if log else at)]
