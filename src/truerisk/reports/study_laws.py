"""The scaling laws of a study: what was swept of sizes, and the laws of each method over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from truerisk.reports.cross_fitting import TunedMethod, pick_column
from truerisk.reports.learning_problem import LearningProblem, RecipeRuns, title_metric
from truerisk.reports.scaling_law import (
    STEEPEST,
    HeldOut,
    LawEstimate,
    estimate_law,
    hold_out_largest,
    refuse_sizes,
)
from truerisk.reports.seed_mean import SeedMean

SAMPLES = "data.num_train"
LENGTHS = ("trainer.max_steps", "trainer.max_epochs")
PARAMETERS = "parameters"
"""What the size of a model is called: how many numbers a run trains."""
LEAST_FALL = 0.01
"""A risk that falls by a smaller share of itself over all sizes has no exponent to speak of."""


class StudyLaw(NamedTuple):
    """A scaling law of one method, and what it was fitted to."""

    method: str
    metric: str
    names: tuple[str, ...]
    """of the sizes: one, or two"""
    sizes: np.ndarray
    """[points, kinds]"""
    measured: list[SeedMean]
    """at each point, the best of whatever else was swept there"""
    estimate: LawEstimate
    misfit: float
    """the largest share by which it is off at a point, if by more than the point's
    interval is wide; else 0"""
    held: HeldOut | None

    def tell_numbers(self) -> dict[str, Any]:
        """Put the law into containers, texts and numbers that JSON has."""
        law, kinds = self.estimate.law, range(len(self.names))
        parts = ("at", "predicted", "low", "high", "measured")
        held = self.held and {part: getattr(self.held, part).tolist() for part in parts}
        return {
            "method": self.method,
            "metric": self.metric,
            "sizes": self.names,
            "offset": law.offset,
            "offset_interval": self.estimate.bound_offset(),
            "factors": law.factors.tolist(),
            "exponents": law.exponents.tolist(),
            "exponent_intervals": [self.estimate.bound_exponent(kind) for kind in kinds],
            "misfit": self.misfit,
            "points": [
                {"at": at, "risk": mean}
                for at, mean in zip(self.sizes.tolist(), self.measured, strict=True)
            ],
            "left_out": held,
        }


class LawsFound(NamedTuple):
    """The laws of a problem's methods, and why others have none."""

    laws: list[StudyLaw]
    refusals: list[str]


class SizedRecipes(NamedTuple):
    """Recipes of one method, with their sizes of each kind that was swept."""

    recipes: list[RecipeRuns]
    sizes: dict[str, list[float]]
    notes: list[str]


def find_laws(problem: LearningProblem, methods: Sequence[TunedMethod]) -> LawsFound:
    """Fit a law to each method of which samples, parameters, steps or epochs were swept.

    Of two sizes it is one law of both where each has values enough, else one of either, at the
    best of the other.

    Args:
        problem: the problem.
        methods: those to fit laws to.

    Returns:
        The laws, and a word for each that there is not.
    """
    found = LawsFound([], [])
    for method in methods:
        swept = find_sizes(problem.methods[method.name])
        found.refusals.extend(swept.notes)
        names = tuple(swept.sizes)
        choices: list[tuple[str, ...]] = [(name,) for name in names]
        if len(names) == 2 and not refuse_names(swept, names):
            choices = [names]
        for chosen in choices:
            law = fit_method(problem, method.name, swept, chosen)
            if isinstance(law, str):
                found.refusals.append(law)
            else:
                found.laws.append(law)
    # methods share what is the matter with the sizes
    return LawsFound(found.laws, list(dict.fromkeys(found.refusals)))


def find_sizes(recipes: list[RecipeRuns]) -> SizedRecipes:
    """Find which sizes were swept among a method's recipes.

    Runs that ended early were not trained to the length asked for, and are left out where lengths
    were swept.
    """
    notes = []
    recipes = [recipe for recipe in recipes if recipe.status_counts["finished"]]
    lengths = [key for key in LENGTHS if len(_list_values(recipes, key)) > 1]
    kept = recipes
    if lengths:
        kept = [r for r in recipes if not any(run.stop is not None for run in r.runs)]
        if len(kept) < len(recipes):
            notes.append(
                f"{len(recipes) - len(kept)} of {len(recipes)} recipes ended early, before the "
                f"{_last_part(lengths[0])} asked for, and count for no law"
            )
    sizes = {
        _last_part(key): [recipe.numbers[key] for recipe in kept]
        for key in (SAMPLES, *lengths)
        if len(_list_values(kept, key)) > 1 and all(key in recipe.numbers for recipe in kept)
    }
    if any(key.startswith("model.") for recipe in kept for key in recipe.numbers):
        counts = [_count_parameters(recipe) for recipe in kept]
        if any(map(math.isnan, counts)):
            notes.append(
                f"runs of earlier versions do not tell their {PARAMETERS}, so there is no law over "
                "them"
            )
        elif len(set(counts)) > 1:
            sizes = {PARAMETERS: counts, **sizes}
    return SizedRecipes(kept, sizes, notes)


def _list_values(recipes: Sequence[RecipeRuns], key: str) -> set[float]:
    return {recipe.numbers[key] for recipe in recipes if key in recipe.numbers}


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def _count_parameters(recipe: RecipeRuns) -> float:
    """Count what a recipe's runs train; nan where one of them has not noted it."""
    # one that failed before it began has noted nothing, and has no risk either
    counts = [run.parameters for run in recipe.runs if run.status == "finished"]
    known = [count for count in counts if count is not None]
    return float(np.mean(known)) if len(known) == len(counts) else math.nan


def refuse_names(swept: SizedRecipes, names: tuple[str, ...]) -> str:
    """Say why no law of some sizes is fitted; empty where one can be."""
    columns = [swept.sizes[name] for name in names]
    return refuse_sizes(np.array(sorted(set(zip(*columns, strict=True)))), names)


def fit_method(
    problem: LearningProblem, method: str, swept: SizedRecipes, names: tuple[str, ...]
) -> StudyLaw | str:
    """Fit a law to the risk of a method on unseen data.

    Args:
        problem: the problem.
        method: its label.
        swept: its recipes.
        names: of the sizes that the law is of.

    Returns:
        The law, or why there is none.
    """
    if refusal := refuse_names(swept, names):
        return refusal
    metric = (*problem.unseen_risks, "risk/val")[0]
    groups: dict[tuple[float, ...], list[RecipeRuns]] = {}
    for recipe, *size in zip(swept.recipes, *(swept.sizes[name] for name in names), strict=True):
        groups.setdefault(tuple(size), []).append(recipe)
    best = {size: _pick_recipe(problem, groups[size]) for size in sorted(groups)}
    picked = {size: r for size, r in best.items() if r is not None and r.get_values(metric)}
    sizes = np.array(list(picked))
    # the sizes at which nothing finished may have made the range
    if not len(sizes) or (refusal := refuse_sizes(sizes, names)):
        return refusal or f"no run over {' and '.join(names)} has finished"
    risks = stack_risks(list(picked.values()), metric)
    title = title_metric(metric)
    if not (risks > 0).all():
        return f"the {title} of {method} is not above 0 everywhere, as a power law is"
    estimate = estimate_law(sizes, risks, problem.overlap)
    law, means = estimate.law, risks.mean(0)
    ends = law.factors * (sizes.min(0) ** -law.exponents - sizes.max(0) ** -law.exponents)
    for name, fall, exponent in zip(names, ends / means.min(), law.exponents, strict=True):
        if fall < LEAST_FALL:
            return f"the {title} of {method} does not fall with {name}"
        if exponent > 0.99 * STEEPEST:
            return f"the {title} of {method} drops too steeply with {name} for a power law"
    measured = [recipe.estimate(metric) for recipe in picked.values()]
    off = abs(law.predict(sizes) - means)
    # one in twenty points lies outside its interval though the law is true; one seed has none
    widths = np.array([mean.high - mean.low for mean in measured])
    far = off > np.where(np.isnan(widths), 0.1 * means, widths)
    misfit = float((off / means).max(where=far, initial=0.0))
    held = hold_out_largest(sizes, risks, problem.overlap)
    return StudyLaw(method, metric, names, sizes, measured, estimate, misfit, held)


def _pick_recipe(problem: LearningProblem, recipes: list[RecipeRuns]) -> RecipeRuns | None:
    """Pick the best on validation of the recipes of one size; None where nothing has finished."""
    column = pick_column(problem.stack_oriented(recipes))
    return None if column is None else recipes[column]


def stack_risks(recipes: Sequence[RecipeRuns], metric: str) -> np.ndarray:
    """Stack a risk over the seeds that all recipes share, [seeds, recipes].

    Where they share none it is their means, in one row.
    """
    values = [recipe.get_values(metric) for recipe in recipes]
    shared = [seed for seed in values[0] if all(seed in column for column in values)]
    if not shared:
        return np.array([[np.mean(list(column.values())) for column in values]])
    return np.array([[column[seed] for column in values] for seed in shared])
