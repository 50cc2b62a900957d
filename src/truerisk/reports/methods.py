"""Methods compared at their best: each tuned by validation, and judged where it was not tuned."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from truerisk.reports.compare import Comparison, adjust, compare
from truerisk.reports.estimate import Estimate, estimate
from truerisk.reports.selection import Selection, crossfit, select
from truerisk.reports.study import Problem, Recipe, Seed


class Tuned(NamedTuple):
    """A method, what tuning picked for it, and the risk on unseen data that tuning it gives."""

    name: str
    trials: int
    selection: Selection
    unseen: dict[Seed, float]
    """by seed, of the setting that the other seeds pick"""

    @property
    def risk(self) -> Estimate:
        """The cross-fitted risk on unseen data."""
        return estimate(list(self.unseen.values()))


def tuned(problem: Problem) -> list[Tuned]:
    """Every method that was tried in several settings, or beside others; the best tuned first."""
    found = []
    for name, recipes in problem.methods.items():
        chosen = select(problem, recipes)
        if chosen is not None:
            found.append(Tuned(name, len(recipes), chosen, unseen(problem, recipes)))
    return sorted(found, key=lambda method: method.selection.val.mean)


def unseen(problem: Problem, recipes: list[Recipe]) -> dict[Seed, float]:
    """The risk on unseen data, on each seed, of the recipe that the other seeds pick."""
    val, scored = (problem.matrix(metric, recipes) for metric in ("risk/val", problem.unseen))
    values = crossfit(val, scored)
    pairs = zip(problem.seeds, values, strict=True)
    return {seed: float(value) for seed, value in pairs if np.isfinite(value)}


def contest(methods: list[Tuned]) -> list[Comparison]:
    """All pairs of methods, adjusted for their number."""
    pairs = combinations(methods, 2)
    return adjust([compare(a.name, b.name, a.unseen, b.unseen) for a, b in pairs])
