"""Selection on validation risk, and cross-fitted estimates that are free of its optimism.

Cross-fitting over seeds picks a recipe on all seeds but one and scores it on that one, in turn.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

from truerisk.reports.comparison import (
    RecipeComparison,
    adjust_comparisons,
    compare_recipes,
    two_sided_p,
)
from truerisk.reports.learning_problem import LearningProblem, RecipeRuns, Seed
from truerisk.reports.seed_mean import (
    ROUNDING,
    FoldLosses,
    SeedMean,
    estimate_mean,
    student_interval,
)


def choose_columns(total: np.ndarray, finite: np.ndarray, infinite: np.ndarray) -> np.ndarray:
    """Choose the recipe with the lowest mean risk.

    A recipe that diverged on some seed is chosen only where every recipe did: then the least often
    diverged come first, and of these the lowest.

    Args:
        total: sums of the finite risks over seeds, [..., recipes].
        finite: how many they are, [..., recipes].
        infinite: how many runs diverged, [..., recipes].

    Returns:
        Indices of recipes, [...]; −1 where no recipe has a finite risk.
    """
    diverged_share = np.where(finite > 0, infinite / np.maximum(finite + infinite, 1), np.inf)
    eligible = (finite > 0) & (diverged_share <= diverged_share.min(-1, keepdims=True))
    # infinite, as a sum of 0 over no seed would win
    mean = np.where(eligible, total / np.maximum(finite, 1), np.inf)
    return np.where(eligible.any(-1), mean.argmin(-1), -1)


def _summands(val: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split risks [seeds, recipes] into the three terms that `choose_columns` takes the sums of."""
    finite = np.isfinite(val)
    return np.where(finite, val, 0.0), finite.astype(int), np.isinf(val).astype(int)


def pick_column(val: np.ndarray) -> int | None:
    """Pick the recipe with the lowest mean validation risk, [seeds, recipes]; None if none has any.

    >>> pick_column(np.array([[1.0, 0.5, 0.2], [1.0, 0.6, math.inf]]))
    1
    """
    if not val.size:
        return None
    best = int(choose_columns(*(part.sum(0) for part in _summands(val))))
    if best < 0:
        return None
    return best


def cross_fit_scores(val: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Score, on each seed, the recipe that the validation risks of all other seeds pick.

    Pick and score share no seed, so that their mean is free of the winner's curse, for a pick from
    one seed less.

    Args:
        val: validation risks, by which recipes are picked, [seeds, recipes].
        scores: what the pick is scored by, [seeds, recipes].

    Returns:
        [seeds]; nan where nothing can be picked, or the pick has no finite score.

    >>> val = np.array([[1.0, 2.0], [4.0, 1.0], [1.0, 2.0]])
    >>> cross_fit_scores(val, val)  # without the second seed it picks the first, else the second
    array([2., 4., 2.])
    """
    best = choose_columns(*(part.sum(0) - part for part in _summands(val)))
    return _take_scores(scores, best)


def _take_scores(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Take at each seed, from [seeds, recipes], the score of the recipe that ``best`` says."""
    if scores.shape[1] == 1:
        best = np.zeros_like(best)  # a single recipe needs no other seed to be picked
    value = scores[np.arange(len(scores)), best]
    return np.where((best >= 0) & np.isfinite(value), value, np.nan)


class CrossFitEstimate(NamedTuple):
    """Cross-fitted scores, and what they would be without each seed in turn."""

    scores: np.ndarray
    """[seeds]"""
    without: np.ndarray
    """[seed left out, seeds]; nan on the diagonal"""
    settings: int
    """how many recipes there were to pick from"""
    overlap: float = 0.0
    """test samples over training samples, where the seeds are folds"""

    def subtract(self, other: CrossFitEstimate) -> CrossFitEstimate:
        """Take the difference on each seed, for the comparison of two methods."""
        settings = max(self.settings, other.settings)
        parts = self.scores - other.scores, self.without - other.without
        return CrossFitEstimate(*parts, settings, max(self.overlap, other.overlap))

    def estimate_mean(self) -> SeedMean:
        """Estimate the mean score, with a standard error that allows for the shared picks.

        Scores on different seeds depend on each other through their picks, so ``s/√n`` is too
        small where picks are close. The jackknife leaves out each seed of the whole procedure,
        ``se² = (n − 1)/n Σ(m₍ᵢ₎ − m̄)²``, and is not too small on average; the larger of the two
        counts. Of fewer than three seeds there is none.

        Source: Efron & Stein 1981, "The Jackknife Estimate of Variance".
        """
        finite = np.isfinite(self.scores)
        naive = estimate_mean(self.scores[finite], overlap=self.overlap)
        if self.settings == 1 or naive.n < 2:
            return naive
        if naive.n < 3:
            return SeedMean(naive.mean, math.nan, math.nan, math.nan, naive.n)
        replicates = self.without[finite]
        replicates = replicates[np.isfinite(replicates).any(1)]
        means = np.nanmean(replicates, 1)
        # var() divides by n, so that (n − 1)·var is the formula above
        jackknife = math.sqrt((len(means) - 1) * float(means.var()))
        jackknife *= math.sqrt(1 + naive.n * self.overlap)
        stderr = max(naive.stderr, jackknife)
        low, high = map(float, student_interval(naive.mean, stderr, naive.n - 1))
        return SeedMean(naive.mean, stderr, low, high, naive.n)


def cross_fit(val: np.ndarray, scores: np.ndarray) -> CrossFitEstimate:
    """Cross-fit, and cross-fit without each seed.

    Args:
        val: validation risks, by which recipes are picked, [seeds, recipes].
        scores: what the pick is scored by, [seeds, recipes].

    Returns:
        The scores and their jackknife replicates.
    """
    # the sums without seed i and seed j, [i, j, recipes], are O(n²) small sums, not O(n²) passes
    sums = [part.sum(0) - part[:, None] - part[None] for part in _summands(val)]
    without = _take_scores(scores, choose_columns(*sums))
    np.fill_diagonal(without, np.nan)
    return CrossFitEstimate(cross_fit_scores(val, scores), without, val.shape[1])


class RecipeSelection(NamedTuple):
    """The recipe that validation risk selects, and what is known of its risk."""

    recipe: RecipeRuns
    among: int
    """recipes there were to pick from"""
    val: SeedMean
    unseen: SeedMean
    """the risk on unseen data of what was picked"""
    difference: SeedMean
    """unseen minus validation risk, paired by seed"""
    cross_fitted: CrossFitEstimate
    """the unseen risk, on each seed, of what the other seeds pick"""
    optimism: float
    """the winner's curse: validation risk on seeds left out of the pick, minus that of the pick"""
    tied: int = 1
    """recipes with that very validation risk, itself one of them"""


def select_recipe(
    problem: LearningProblem, recipes: list[RecipeRuns] | None = None
) -> RecipeSelection | None:
    """Select the recipe with the lowest mean validation risk over seeds.

    Args:
        problem: the problem.
        recipes: those to choose from; by default all.

    Returns:
        The selection; None where no run has a validation risk.
    """
    if recipes is None:
        recipes = problem.recipes
    val = problem.stack_oriented(recipes)
    best = pick_column(val)
    if best is None:
        return None
    unseen = problem.stack_scores(problem.unseen_metric, recipes)
    # a seed on which a run diverged has no difference to another, rather than an infinite one
    shown = problem.stack_scores(problem.monitor.name, recipes)
    best_val, best_unseen = (np.where(np.isfinite(m), m, np.nan)[:, best] for m in (shown, unseen))
    return RecipeSelection(
        recipes[best],
        among=len(recipes),
        val=estimate_mean(_drop_nonfinite(best_val), overlap=problem.overlap),
        unseen=recipes[best].estimate(problem.unseen_metric),
        difference=estimate_mean(_drop_nonfinite(best_unseen - best_val), overlap=problem.overlap),
        cross_fitted=cross_fit(val, unseen)._replace(overlap=problem.overlap),
        optimism=_estimate_optimism(cross_fit_scores(val, shown), best_val),
        tied=_count_ties(val, best),
    )


def _count_ties(val: np.ndarray, best: int) -> int:
    """Count the recipes, of [seeds, recipes], with the mean and the diverged runs of the best."""
    total, finite, infinite = (part.sum(0) for part in _summands(val))
    shares = infinite * (finite[best] + infinite[best]) == infinite[best] * (finite + infinite)
    means = total / np.maximum(finite, 1)
    near = np.abs(means - means[best]) <= ROUNDING * np.abs(means[best])
    return int((near & shares & (finite > 0)).sum())


def _estimate_optimism(cross_fitted: np.ndarray, selected: np.ndarray) -> float:
    gain = _drop_nonfinite(cross_fitted - selected)
    if len(gain) < 2:
        return math.nan
    return float(gain.mean())


def _drop_nonfinite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


class TunedMethod(NamedTuple):
    """A method, the setting that tuning picks, and the risk on unseen data that tuning gives."""

    name: str
    trials: int
    """settings tried"""
    selection: RecipeSelection
    unseen: CrossFitEstimate
    """the risk, on each seed, of the setting that the other seeds pick"""
    seeds: list[Seed]
    losses: FoldLosses | None = None
    """of the samples that folds tested, where there is a single setting"""

    @property
    def risk(self) -> SeedMean:
        """The cross-fitted risk on unseen data."""
        if self.trials == 1:
            return self.selection.unseen
        return self.unseen.estimate_mean()

    @property
    def risk_by_seed(self) -> dict[Seed, float]:
        """The cross-fitted risk on unseen data, where it is finite."""
        pairs = zip(self.seeds, self.unseen.scores, strict=True)
        return {seed: float(score) for seed, score in pairs if np.isfinite(score)}


def tune_methods(problem: LearningProblem) -> list[TunedMethod]:
    """Tune every method, in one setting or many, on validation risk; the best comes first."""
    methods = []
    for name, recipes in problem.methods.items():
        selection = select_recipe(problem, recipes)
        if selection is not None:
            unseen, losses = selection.cross_fitted, None
            if len(recipes) == 1:
                losses = recipes[0].get_losses(problem.unseen_metric)
            tuned = TunedMethod(name, len(recipes), selection, unseen, problem.seeds, losses)
            methods.append(tuned)
    orient = problem.monitor.orient
    return sorted(methods, key=lambda method: orient(method.selection.val.mean))


def compare_methods(methods: list[TunedMethod], higher: bool = False) -> list[RecipeComparison]:
    """Compare all pairs of methods as tuned, adjusted for their number.

    Args:
        methods: on one problem.
        higher: whether what they are compared by is better where it is higher.
    """
    pairs = combinations(methods, 2)
    return adjust_comparisons([compare_two_methods(a, b, higher) for a, b in pairs])


def compare_two_methods(a: TunedMethod, b: TunedMethod, higher: bool = False) -> RecipeComparison:
    """Compare two methods by their cross-fitted risks on unseen data.

    Args:
        a: a method.
        b: another one on the same problem.
        higher: whether what they are compared by is better where it is higher.

    Returns:
        The comparison; where one was tuned over several settings and seeds are shared, its
        difference has the jackknife's standard error.
    """
    overlap = max(a.unseen.overlap, b.unseen.overlap)
    risks = a.risk_by_seed, b.risk_by_seed
    losses = a.losses, b.losses
    comparison = compare_recipes(a.name, b.name, *risks, None, overlap, losses, higher)
    if not comparison.paired or max(a.trials, b.trials) == 1:
        return comparison
    difference = a.unseen.subtract(b.unseen).estimate_mean()
    if difference.stderr == 0:
        return comparison._replace(difference=difference)
    t = difference.mean / difference.stderr  # nan where two seeds leave no standard error
    return comparison._replace(difference=difference, p=two_sided_p(t, difference.n - 1))
