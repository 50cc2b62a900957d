"""Picking a recipe on validation risk, and what that does to the number it was picked by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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


def pick(val: np.ndarray) -> int | None:
    """The column of [seeds, recipes] with the lowest mean; None where no mean is finite.

    A recipe that diverged on a seed has an infinite mean, and is picked only where every recipe
    diverged on some seed: then the least often diverged, and of these the lowest.
    """
    means = _means(val)
    if not len(means):
        return None
    if np.isfinite(means).any():
        return int(np.nanargmin(means))
    kept = np.where(np.isfinite(val), val, np.nan)
    share = np.isinf(val).sum(0) / np.maximum((~np.isnan(val)).sum(0), 1)
    rest = [(share[i], m, i) for i, m in enumerate(_means(kept)) if np.isfinite(m)]
    return min(rest)[2] if rest else None


def _means(values: np.ndarray) -> np.ndarray:
    """Means over seeds, of the seeds there are; nan where there is none."""
    count = (~np.isnan(values)).sum(0)
    total = np.nansum(values, 0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def crossfit(val: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """On each seed, the score of the recipe that the other seeds' validation risks pick.

    Pick and score share no seed, so that a mean of these is free of the winner's curse (for a pick
    from one seed less). Where what was picked has no finite score, it is nan.

    Args:
        val: what is picked by, [seeds, recipes].
        scored: what is asked of the pick, of the same shape.

    >>> val = np.array([[1.0, 2.0], [4.0, 1.0], [1.0, 2.0]])
    >>> crossfit(val, val)  # without the second seed the first recipe is picked, else the second
    array([2., 4., 2.])
    """
    found = np.full(len(val), np.nan)
    for i in range(len(val)):
        best = pick(np.delete(val, i, 0)) if len(val) > 1 else 0
        if best is not None and np.isfinite(scored[i, best]):
            found[i] = scored[i, best]
    return found


def select(problem: Problem, recipes: list[Recipe] | None = None) -> Selection | None:
    """Pick one of the recipes on the mean validation risk over seeds; None where none has any."""
    recipes = problem.recipes if recipes is None else recipes
    val = problem.matrix("risk/val", recipes)
    best = pick(val) if val.size else None
    if best is None:
        return None
    unseen = problem.matrix(problem.unseen, recipes)
    own, other = (np.where(np.isfinite(m), m, np.nan)[:, best] for m in (val, unseen))
    fresh = crossfit(val, val)
    both = np.isfinite(fresh) & np.isfinite(own)
    optimism = float((fresh - own)[both].mean()) if both.sum() > 1 else float("nan")
    return Selection(
        recipes[best],
        among=len(recipes),
        val=estimate(_finite(own)),
        unseen=estimate(_finite(other)),
        difference=estimate(_finite(other - own)),
        crossfit=estimate(_finite(crossfit(val, unseen))),
        optimism=optimism,
    )


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
