"""Which recipes of a problem are compared with which."""

from __future__ import annotations

from itertools import combinations

from truerisk.core.errors import ConfigError, suggest
from truerisk.reports.compare import Comparison, adjust, compare
from truerisk.reports.study import Problem, Recipe

MOST = 12
"""With more recipes than these only the pairs that hold the selected one are shown."""


def comparisons(
    problem: Problem, metric: str, selected: Recipe | None, baseline: str | None = None
) -> list[Comparison]:
    """Pairs of recipes, the selected one's first, p-values adjusted for their number.

    With a ``baseline``, named beforehand, every recipe is compared with it and the adjustment is
    for these. Without, it is for all pairs, shown or not: the selected recipe was chosen by
    looking at the results.
    """
    recipes = [r for r in problem.recipes if r.series(metric)]
    reference = selected
    if baseline is not None:
        reference = named(problem, baseline)
        recipes = [r for r in recipes if r is not reference]
        return adjust([_pair(r, reference, metric) for r in recipes])
    family = len(recipes) * (len(recipes) - 1) // 2
    first = [r for r in recipes if r is reference]
    rest = [r for r in recipes if r is not reference]
    pairs = [(a, b) for a in first for b in rest]
    if len(recipes) <= MOST:
        pairs += combinations(rest, 2)
    return adjust([_pair(a, b, metric) for a, b in pairs], family)


def _pair(a: Recipe, b: Recipe, metric: str) -> Comparison:
    scores = (a.scores(metric), b.scores(metric))
    return compare(a.label, b.label, a.series(metric), b.series(metric), scores)


def named(problem: Problem, label: str) -> Recipe:
    """The recipe with a label.

    Raises:
        ConfigError: there is none.
    """
    labels = {recipe.label: recipe for recipe in problem.recipes}
    if label not in labels:
        raise ConfigError(f"--baseline: there is no recipe '{label}'; {suggest(label, labels)}")
    return labels[label]
