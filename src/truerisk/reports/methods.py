"""Methods compared at their best: each tuned by validation, and judged where it was not tuned."""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

from truerisk.reports.compare import Comparison, adjust, compare, two_sided
from truerisk.reports.crossfit import Fresh, fresh
from truerisk.reports.estimate import Estimate
from truerisk.reports.selection import Selection, select
from truerisk.reports.study import Problem, Recipe, Seed


class Tuned(NamedTuple):
    """A method, what tuning picked for it, and the risk on unseen data that tuning it gives."""

    name: str
    trials: int
    selection: Selection
    fresh: Fresh
    """the risk on each seed of the setting that the other seeds pick"""
    seeds: list[Seed]

    @property
    def risk(self) -> Estimate:
        """The cross-fitted risk on unseen data."""
        return self.fresh.estimate()

    @property
    def series(self) -> dict[Seed, float]:
        """The cross-fitted risk by seed."""
        pairs = zip(self.seeds, self.fresh.values, strict=True)
        return {seed: float(value) for seed, value in pairs if np.isfinite(value)}


def tuned(problem: Problem) -> list[Tuned]:
    """Every method, in one setting or many; the best tuned first."""
    found = []
    for name, recipes in problem.methods.items():
        chosen = select(problem, recipes)
        if chosen is not None:
            judged = unseen(problem, recipes)
            found.append(Tuned(name, len(recipes), chosen, judged, problem.seeds))
    return sorted(found, key=lambda method: method.selection.val.mean)


def unseen(problem: Problem, recipes: list[Recipe]) -> Fresh:
    """The risk on unseen data, on each seed, of the recipe that the other seeds pick."""
    return fresh(*(problem.matrix(metric, recipes) for metric in ("risk/val", problem.unseen)))


def contest(methods: list[Tuned]) -> list[Comparison]:
    """All pairs of methods, adjusted for their number."""
    return adjust([versus(a, b) for a, b in combinations(methods, 2)])


def versus(a: Tuned, b: Tuned) -> Comparison:
    """Two methods as tuned; where either was, with the standard error that tuning asks for."""
    found = compare(a.name, b.name, a.series, b.series)
    if not found.paired or max(a.trials, b.trials) == 1:
        return found
    difference = a.fresh.minus(b.fresh).estimate()
    if difference.stderr == 0:
        return found._replace(difference=difference)
    known = math.isfinite(difference.stderr)
    t = difference.mean / difference.stderr if known else math.nan
    return found._replace(difference=difference, p=two_sided(t, difference.n - 1))
