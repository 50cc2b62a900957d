"""Picking a recipe on validation risk, and what that does to the number it was picked by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from truerisk.reports.crossfit import crossfit, fresh, pick
from truerisk.reports.estimate import Estimate, estimate
from truerisk.reports.study import Problem, Recipe


class Selection(NamedTuple):
    """A recipe picked on validation, and what is known of it."""

    recipe: Recipe
    among: int
    """recipes there were to pick from"""
    val: Estimate
    unseen: Estimate
    """the risk on unseen data of what was picked"""
    difference: Estimate
    """unseen minus validation risk, paired by seed"""
    crossfit: Estimate
    """the unseen risk of what the other seeds pick, on each seed"""
    optimism: float
    """the winner's curse: validation risk on seeds left out of the pick, minus that of the pick"""


def select(problem: Problem, recipes: list[Recipe] | None = None) -> Selection | None:
    """Pick one of the recipes on the mean validation risk over seeds; None where none has any."""
    recipes = problem.recipes if recipes is None else recipes
    val = problem.matrix("risk/val", recipes)
    best = pick(val)
    if best is None:
        return None
    unseen = problem.matrix(problem.unseen, recipes)
    own, other = (np.where(np.isfinite(m), m, np.nan)[:, best] for m in (val, unseen))
    return Selection(
        recipes[best],
        among=len(recipes),
        val=estimate(_finite(own)),
        unseen=estimate(_finite(other)),
        difference=estimate(_finite(other - own)),
        crossfit=fresh(val, unseen).estimate(),
        optimism=_optimism(crossfit(val, val), own),
    )


def _optimism(fresh: np.ndarray, own: np.ndarray) -> float:
    gain = _finite(fresh - own)
    return float(gain.mean()) if len(gain) > 1 else float("nan")


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
