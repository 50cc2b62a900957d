"""What tuning does: risk against a swept number, against trials spent, and time to a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from truerisk.reports.cross_fitting import TunedMethod, pick_column
from truerisk.reports.learning_problem import LearningProblem, RecipeRuns
from truerisk.reports.run_records import RunRecord
from truerisk.reports.seed_mean import SeedMean, estimate_mean
from truerisk.risk.measured import Monitor


class SweptValue(NamedTuple):
    """A value of a swept number, at the best of all else that was swept with it."""

    at: float
    val: SeedMean
    """nan where every run with this value diverged"""
    unseen: SeedMean
    diverged: float
    """share of the runs with this value that diverged"""


def profile_number(
    problem: LearningProblem, recipes: list[RecipeRuns], key: str
) -> list[SweptValue]:
    """Profile the risk against one number, at the best (on validation) of the others.

    Args:
        problem: the problem.
        recipes: of one method.
        key: the dotted key of the number.

    Returns:
        A point for each value, in ascending order.
    """
    groups: dict[float, list[RecipeRuns]] = {}
    for recipe in recipes:
        if key in recipe.numbers:
            groups.setdefault(recipe.numbers[key], []).append(recipe)
    return [_score_value(problem, groups[value], value) for value in sorted(groups)]


def _score_value(problem: LearningProblem, recipes: list[RecipeRuns], at: float) -> SweptValue:
    """Estimate the risks of the best of the recipes that have a value."""
    best = pick_column(problem.stack_oriented(recipes))
    diverged = float(np.mean([recipe.diverged_share for recipe in recipes]))
    if best is None:
        return SweptValue(at, estimate_mean([]), estimate_mean([]), diverged)
    val = recipes[best].estimate(problem.monitor.name)
    unseen = recipes[best].estimate(problem.unseen_metric)
    return SweptValue(at, val, unseen, diverged)


def average_initial_risk(recipes: list[RecipeRuns]) -> float:
    """Average what runs followed before training; nan where it was not measured."""
    runs = [run for recipe in recipes for run in recipe.runs]
    curves = [run.curves[run.monitor.name] for run in runs if run.monitor.name in run.curves]
    initial = [curve.value[0] for curve in curves if curve.epoch[0] == 0]
    finite = [value for value in initial if math.isfinite(value)]
    if not finite:
        return math.nan
    return float(np.mean(finite))


def compute_sensitivity(points: list[SweptValue], initial: float) -> float:
    """Average ``min(f, f₀) − f*`` over the values tried.

    f is the validation risk, f₀ that before training, f* the lowest; a value at which training
    diverges leaves f₀. The values count alike, so they should be spread evenly (on a log scale).

    Args:
        points: the profile of a number.
        initial: f₀.

    Returns:
        The sensitivity, 0 where the number does not matter; nan where f₀ or every f is unknown.

    Source: Wortsman et al. 2024, "Small-scale Proxies for Large-scale Transformer Training
    Instabilities", §2.2.

    >>> one = lambda at, risk: SweptValue(at, estimate_mean([risk]), estimate_mean([risk]), 0.0)
    >>> compute_sensitivity([one(0.1, 1.0), one(1.0, 3.0), one(10.0, math.nan)], initial=2.5)
    1.0
    """
    risks = np.array([point.val.mean for point in points])
    if not np.isfinite(risks).any() or not math.isfinite(initial):
        return math.nan
    risks = np.minimum(np.where(np.isfinite(risks), risks, initial), initial)
    return float(risks.mean() - risks.min())


class RiskMap(NamedTuple):
    """The lowest mean validation risk at each pair of two numbers' values; nan where none."""

    x: list[float]
    y: list[float]
    risk: np.ndarray
    """[y, x]"""


def map_risk(problem: LearningProblem, recipes: list[RecipeRuns], x: str, y: str) -> RiskMap | None:
    """Map the validation risk over two numbers, each of many values being rounded to a few.

    Args:
        problem: the problem.
        recipes: of one method.
        x: the dotted key of one number.
        y: that of the other.

    Returns:
        The map; None unless both take several values and half of the pairs were tried.
    """
    swept = [recipe for recipe in recipes if x in recipe.numbers and y in recipe.numbers]
    if not swept:
        return None
    across = round_values([recipe.numbers[x] for recipe in swept])
    up = round_values([recipe.numbers[y] for recipe in swept])
    groups: dict[tuple[float, float], list[RecipeRuns]] = {}
    for recipe, a, b in zip(swept, across, up, strict=True):
        groups.setdefault((a, b), []).append(recipe)
    xs, ys = sorted(set(across)), sorted(set(up))
    risk = np.full((len(ys), len(xs)), np.nan)
    for (a, b), group in groups.items():
        risk[ys.index(b), xs.index(a)] = _score_value(problem, group, a).val.mean
    filled = min(len(xs), len(ys)) > 1 and 2 * len(groups) >= risk.size
    if not filled or not np.isfinite(risk).any():
        return None
    return RiskMap(xs, ys, risk)


def round_values(values: list[float], most: int = 12, bins: int = 6) -> list[float]:
    """Round values to the middles of equal bins where they are too many for a map.

    Bins are equal in ratio where all values are positive and span more than a factor of 20.

    Args:
        values: numbers.
        most: so many distinct ones are left as they are.
        bins: the number of bins.

    Returns:
        The values in their order.

    >>> round_values([1.0, 2.0, 1.0])
    [1.0, 2.0, 1.0]
    >>> round_values([1.0, 10.0, 100.0], most=2, bins=2)
    [3.16, 31.6, 31.6]
    """
    if len(set(values)) <= most:
        return values
    log = min(values) > 0 and max(values) > 20 * min(values)
    x = np.array(values)
    if log:
        x = np.log(x)
    edges = np.linspace(x.min(), x.max(), bins + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    # clipped, as the largest value lies on the last edge, outside of the last bin
    rounded = middles[np.clip(np.digitize(x, edges) - 1, 0, bins - 1)]
    if log:
        rounded = np.exp(rounded)
    return [float(f"{value:.3g}") for value in rounded]


class ExpectedBest(NamedTuple):
    """The best of n trials on validation, for n = 1 … N, and what it is worth on unseen data."""

    trials: np.ndarray
    val: np.ndarray
    """expected validation risk of the best"""
    low: np.ndarray
    """its lower quartile over which trials one happens to make"""
    high: np.ndarray
    """its upper quartile"""
    unseen: np.ndarray
    """expected risk on unseen data of the best on validation"""


def best_of_n_probabilities(count: int) -> np.ndarray:
    """Compute [n, i], how likely the i-th best of ``count`` trials is the best of n drawn.

    ``C(N − i, n − 1) / C(N, n)`` for draws without replacement, which makes the expected best
    unbiased; Dodge et al. (2019) drew with replacement.

    Source: Tang et al. 2020, "Showing Your Work Doesn't Always Work".

    >>> best_of_n_probabilities(3).round(4)
    array([[0.3333, 0.3333, 0.3333],
           [0.6667, 0.3333, 0.    ],
           [1.    , 0.    , 0.    ]])
    """
    n, i = np.meshgrid(np.arange(1, count + 1), np.arange(1, count + 1), indexing="ij")
    possible = count - i >= n - 1
    # gammaln of what is not possible would be infinite, so C(k, k) stands there and is dropped
    worse = np.where(possible, count - i, n - 1)
    # in logarithms: C(1000, 500) is no floating-point number
    log_ratio = _log_binomial(worse, n - 1) - _log_binomial(np.full_like(n, count), n)
    return np.where(possible, np.exp(log_ratio), 0.0)


def _log_binomial(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def expect_best(val: np.ndarray, unseen: np.ndarray) -> ExpectedBest:
    """Compute the expected best of n trials, for every n up to the N that were made.

    Args:
        val: validation risks of the trials, [N], all finite.
        unseen: their risks on unseen data, [N].

    Returns:
        The expectations and quartiles, each [N].
    """
    order = np.argsort(val, kind="stable")
    weights = best_of_n_probabilities(len(val))
    ranked = val[order]
    # the sum of weights may end at 0.2499… where it is a quarter
    distribution = np.cumsum(weights, axis=1) + 1e-12
    low, high = (ranked[(distribution >= q).argmax(1)] for q in (0.25, 0.75))
    trials = np.arange(1, len(val) + 1)
    return ExpectedBest(trials, weights @ ranked, low, high, weights @ unseen[order])


class TimeToTarget(NamedTuple):
    """A target on one problem, and the steps in which each tuned method reached it."""

    target: float
    steps: dict[str, float]
    """median over seeds; infinite where half of the seeds or more did not reach it"""
    reached: dict[str, tuple[int, int]]
    """seeds that reached it, of how many"""


def count_steps(run: RunRecord, target: float) -> float:
    """Count the optimizer steps until a run's validation risk was at most ``target``.

    Args:
        run: the run.
        target: a validation risk.

    Returns:
        The step of the first epoch at which it was; infinite where it never was.
    """
    curve = run.curves.get(run.monitor.name)
    if curve is None:
        return math.inf
    better = curve.value <= target
    if run.monitor.higher_is_better:
        better = curve.value >= target
    hits = np.flatnonzero(better)
    if not len(hits):
        return math.inf
    return float(curve.step[hits[0]])


def measure_time_to_target(
    methods: Sequence[TunedMethod], target: float | None = None
) -> TimeToTarget:
    """Measure how soon each method, as it was tuned, reaches a target.

    Args:
        methods: on one problem.
        target: a validation risk; by default the lowest that every method reaches on more than
            half of its seeds.

    Returns:
        The steps of each method; where there is none and no target is given, that is nan.
    """
    if not methods:
        return TimeToTarget(math.nan if target is None else target, {}, {})
    runs = {method.name: _list_ended(method.selection.recipe.runs) for method in methods}
    if target is None:
        monitor = next((run.monitor for ended in runs.values() for run in ended), Monitor())
        target = monitor.orient(max(_reached_by_most(ended) for ended in runs.values()))
    steps, reached = {}, {}
    for name, ended in runs.items():
        times = np.array([count_steps(run, target) for run in ended])
        # a method is among those tuned only if a run of it has finished
        steps[name] = float(np.median(times))
        reached[name] = (int(np.isfinite(times).sum()), len(times))
    return TimeToTarget(target, steps, reached)


def _list_ended(runs: Sequence[RunRecord]) -> list[RunRecord]:
    return [run for run in runs if run.status in ("finished", "diverged")]


def _reached_by_most(runs: Sequence[RunRecord]) -> float:
    """Find the best that more than half of the runs reach, turned so that less is better."""
    followed = [run for run in runs if run.monitor.name in run.curves]
    curves = [run.monitor.orient(1.0) * run.curves[run.monitor.name].value for run in followed]
    lowest = sorted(float(np.nanmin(curve)) for curve in curves)
    return lowest[len(lowest) // 2] if lowest else math.inf


def performance_profile(
    times: Sequence[Mapping[str, float]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Compute on which share ρ(r) of problems a method takes at most r times the fastest.

    ``ρ(r) = |{p : t(p, s) ≤ r · minₛ t(p, s)}| / |problems|``. A method that was not tried on a
    problem, or did not reach its target, is never within any r.

    Args:
        times: for each problem, the time of each method.

    Returns:
        For each method the ratios at which ρ rises, beginning with 1, and ρ from there on.

    Source: Dolan & Moré 2002, "Benchmarking Optimization Software with Performance Profiles";
    Dahl et al. 2023, "Benchmarking Neural Network Training Algorithms", §4.

    >>> performance_profile([{"a": 10.0, "b": 20.0}, {"a": 30.0, "b": 10.0}])["a"]
    (array([1., 3.]), array([0.5, 1. ]))
    """
    fastest = [min(t.values()) for t in times]
    profiles = {}
    for name in dict.fromkeys(name for t in times for name in t):
        # a problem that no method solved has no fastest one, and is solved by none within any r
        ratios = sorted(
            t.get(name, math.inf) / best
            for t, best in zip(times, fastest, strict=True)
            if 0 < best < math.inf
        )
        finite, first = np.unique([r for r in ratios if math.isfinite(r)], return_index=True)
        # as many ratios are at most finite[k] as come before the first of the next larger one
        solved = np.append(first[1:], sum(map(math.isfinite, ratios)))[: len(finite)]
        share = solved / max(len(ratios), 1)
        if not len(finite) or finite[0] > 1:
            finite, share = np.insert(finite, 0, 1.0), np.insert(share, 0, 0.0)
        profiles[name] = (finite, share)
    return profiles
