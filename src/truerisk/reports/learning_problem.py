"""Runs sorted into learning problems, recipes and seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from truerisk.logger.label import option_name
from truerisk.reports.config_diff import (
    REGULARIZERS,
    FlatConfig,
    defines_problem,
    find_varied_keys,
    flatten_config,
    format_label,
    select_numeric_keys,
    shorten_keys,
)
from truerisk.reports.run_records import CollectedRuns, RunRecord, read_overlap
from truerisk.reports.seed_mean import (
    FoldLosses,
    Limits,
    SeedMean,
    estimate_columns,
    estimate_mean,
    pool_folds,
)
from truerisk.risk.intervals import find_range
from truerisk.risk.measured import FOLLOWED_RISK, Monitor

METRIC_TITLES = {
    "risk/train": "train risk",
    "risk/val": "validation risk",
    "risk/gap": "gap",
    "risk/test": "test risk",
    "risk/true": "true risk",
    "error/train": "train error",
    "error/val": "validation error",
    "error/test": "test error",
    "error/true": "true error",
}
"""The metrics that are shown, in order, and what they are called."""


def title_metric(metric: str) -> str:
    """Write what a measured number is called in tables and sentences.

    >>> title_metric("risk/val"), title_metric("metric/f1/a class/val")
    ('validation risk', 'validation f1 a class')
    """
    if metric in METRIC_TITLES or not metric.startswith("metric/"):
        return METRIC_TITLES.get(metric, metric)
    name, _, split = metric.removeprefix("metric/").rpartition("/")
    words = {"val": "validation"}
    return f"{words.get(split, split)} {name.replace('/', ' ')}"


def find_limits(runs: Sequence[RunRecord], metric: str) -> Limits:
    """Return the least and the largest that a metric can be, and the samples that a run has of it.

    Args:
        runs: of one recipe.
        metric: its name.
    """
    sizes = [run.summary[metric].size for run in runs if metric in run.summary]
    size = min((size for size in sizes if size is not None), default=math.inf)
    return Limits(*find_range(metric), size)


STATUSES = ("finished", "diverged", "failed", "interrupted", "running")
"""How runs end, in the order in which they are counted."""

Seed = tuple[int, ...]
"""The seeds of a run's random streams."""


@dataclass
class RecipeRuns:
    """The runs of one recipe: a configuration without its seeds, on one learning problem.

    Args:
        label: a short name, unique within the problem.
        method: the label without the numbers that were swept.
        values: the keys in which recipes differ, and their values.
        numbers: those of them that were swept over numbers.
        runs: one a seed.
    """

    label: str
    method: str
    values: Mapping[str, Any]
    numbers: Mapping[str, float]
    runs: list[RunRecord]

    @property
    def overlap(self) -> float:
        """Test samples over training samples, where runs are those of folds; 0 elsewhere."""
        return read_overlap(self.runs[0].config) if self.runs else 0.0

    def estimate(self, metric: str) -> SeedMean:
        """Estimate a metric's mean over seeds, or over samples of folds, of runs that finished."""
        values = np.array(list(self.get_values(metric).values()))
        losses, limits = self.get_losses(metric), find_limits(self.runs, metric)
        found, freedom = estimate_mean(values, overlap=self.overlap), len(values) - 1.0
        pooled = None if losses is None else pool_folds(losses, self.overlap)
        if pooled is not None:
            found, freedom = pooled
        if found.n < 2:
            return found
        if limits.closed:
            low, high = limits.bound_closed(found.mean, found.stderr, freedom)
        elif self.overlap:
            low, high = max(found.low, limits.low), min(found.high, limits.high)
        else:
            _, (low,), (high,) = estimate_columns(values[:, None], limits)
        return found._replace(low=float(low), high=float(high))

    @property
    def status_counts(self) -> Counter[str]:
        """The number of runs by status."""
        return Counter(run.status for run in self.runs)

    @property
    def diverged_share(self) -> float:
        """The share of runs that diverged, of those that finished or diverged."""
        counts = self.status_counts
        # runs that failed or were cut off say nothing of the recipe
        ended = counts["finished"] + counts["diverged"]
        return counts["diverged"] / ended if ended else 0.0

    @property
    def halved(self) -> int:
        """The number of runs that successive halving ended early."""
        return sum(run.halved for run in self.runs)

    def get_values(self, metric: str) -> dict[Seed, float]:
        """Look a metric up by seed, for the runs that finished and measured it."""
        values = {run.seed: run.get_value(metric) for run in self.runs if run.status == "finished"}
        # nan stands for what was not measured; a test risk may be infinite in a run that finished
        return {seed: value for seed, value in values.items() if math.isfinite(value)}

    def get_losses(self, metric: str) -> FoldLosses | None:
        """Look up the losses of the samples that folds tested, where every run has kept them.

        Of a metric they are its value on the fold plus each sample's influence on it.
        """
        kind, _, split = metric.rpartition("/")
        seeds = self.get_values(metric)
        runs = [run for run in self.runs if run.seed in seeds]
        if split != "test" or not runs or any(kind not in run.losses for run in runs):
            return None
        groups = {run.seed: run.losses["group"] for run in runs if "group" in run.losses}
        return FoldLosses({run.seed: run.losses[kind].astype(float) for run in runs}, groups)

    def prefers_higher(self, metric: str) -> bool:
        """Tell whether higher is better of a metric."""
        key = "/".join(metric.split("/")[:2])
        return any(key in run.higher for run in self.runs)

    def get_scores(self, metric: str) -> dict[Seed, float]:
        """Look a metric up by seed, counting a run that diverged as infinitely bad."""
        worst = -math.inf if self.prefers_higher(metric) else math.inf
        lost = {run.seed: worst for run in self.runs if run.status == "diverged"}
        return {**lost, **self.get_values(metric)}


@dataclass
class LearningProblem:
    """One data set and loss, and the recipes that were tried on it.

    Args:
        name: a label, unique within the study.
        values: the keys in which problems differ, and their values.
        recipes: in the order met; all of them are there before anything is asked, since what is
            found by a look at every run is kept.
    """

    name: str
    values: Mapping[str, Any]
    recipes: list[RecipeRuns]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that were measured, in the order in which they are shown."""
        measured = {m for r in self.recipes for run in r.runs for m in run.summary}
        runs = [run for recipe in self.recipes for run in recipe.runs]
        own = dict.fromkeys(m for run in runs for m in run.summary if m.startswith("metric/"))
        risks = [metric for metric in METRIC_TITLES if metric in measured]
        if self.monitor == FOLLOWED_RISK:
            return [*risks, *own]
        # what counts comes where a page shows it without being moved
        first = [m for m in own if m.split("/")[:2] == self.monitor.name.split("/")[:2]]
        return list(dict.fromkeys([*first, *risks, *own]))

    @cached_property
    def monitor(self) -> Monitor:
        """What recipes are picked by: what their runs followed, if all followed the same."""
        runs = [run for recipe in self.recipes for run in recipe.runs]
        # one that failed before it began has not noted what it would have followed
        followed = {run.monitor for run in runs if run.summary} or {run.monitor for run in runs}
        return followed.pop() if len(followed) == 1 else Monitor()

    @cached_property
    def constants(self) -> dict[str, SeedMean]:
        """What the best constant predictor comes to, over seeds, by metric.

        It knows the training targets alone, so that it is the same for all recipes of a seed; of
        several numbers of training samples it is their mean.
        """
        found = {}
        for metric in self.metrics:
            values: dict[Seed, list[float]] = {}
            for run in (run for recipe in self.recipes for run in recipe.runs):
                value = run.get_value(f"constant/{metric}")
                if math.isfinite(value):
                    values.setdefault(run.seed, []).append(value)
            if values:
                means = [sum(each) / len(each) for each in values.values()]
                found[metric] = estimate_mean(means, overlap=self.overlap)
        return found

    @cached_property
    def overlap(self) -> float:
        """Test samples over training samples, where runs are those of folds; 0 elsewhere."""
        return max((recipe.overlap for recipe in self.recipes), default=0.0)

    @cached_property
    def unit(self) -> str:
        """What its runs are of: a seed, or a fold of one."""
        return "fold" if self.overlap else "seed"

    @cached_property
    def unseen_metric(self) -> str:
        """The metric that estimates the risk on unseen data: test, else true, else validation."""
        measured, monitor = self.metrics, self.monitor
        names = (monitor.at("test"), monitor.at("true"))
        return next((m for m in names if m in measured), monitor.name)

    @cached_property
    def unseen_risks(self) -> list[str]:
        """The risk on the unseen data whose metric recipes are judged by, where it was measured."""
        name = f"risk/{self.unseen_metric.rpartition('/')[2]}"
        return [name] if name in self.metrics else []

    @cached_property
    def methods(self) -> dict[str, list[RecipeRuns]]:
        """The recipes that differ in nothing but numbers, by the label they share."""
        groups: dict[str, list[RecipeRuns]] = {}
        for recipe in self.recipes:
            groups.setdefault(recipe.method, []).append(recipe)
        return groups

    @cached_property
    def seeds(self) -> list[Seed]:
        """The seeds of all recipes, in the order met."""
        return list(dict.fromkeys(run.seed for r in self.recipes for run in r.runs))

    def stack_oriented(self, recipes: Sequence[RecipeRuns] | None = None) -> np.ndarray:
        """Stack what recipes are picked by, turned so that less is better, [seeds, recipes].

        Args:
            recipes: the columns; by default all recipes.
        """
        scores = self.stack_scores(self.monitor.name, recipes)
        return -scores if self.monitor.higher_is_better else scores

    def stack_scores(self, metric: str, recipes: Sequence[RecipeRuns] | None = None) -> np.ndarray:
        """Stack a metric into a matrix of seeds by recipes.

        Args:
            metric: its name.
            recipes: the columns; by default all recipes.

        Returns:
            [seeds, recipes]: infinite where a run diverged, nan where there is none.
        """
        if recipes is None:
            recipes = self.recipes
        columns = [recipe.get_scores(metric) for recipe in recipes]
        rows = [[column.get(seed, math.nan) for column in columns] for seed in self.seeds]
        return np.array(rows, dtype=float)


MOST_UNREADABLE = 5
"""Runs that could not be read of which each is named."""


@dataclass
class StudyResults:
    """Everything a report is about.

    Args:
        problems: in the order met.
        short_names: short names of the keys in which runs differ.
        numeric_keys: the keys that were swept over numbers.
        repeated: the number of runs left out, as another has their recipe and seed.
        unreadable: a line for each run that could not be read.
        refused: why cells cannot work, by folder.
    """

    problems: list[LearningProblem]
    short_names: Mapping[str, str]
    numeric_keys: list[str]
    repeated: int = 0
    unreadable: list[str] = field(default_factory=list)
    refused: Mapping[Path, str] = field(default_factory=dict)

    @property
    def runs(self) -> list[RunRecord]:
        """All runs that count."""
        return [run for p in self.problems for recipe in p.recipes for run in recipe.runs]

    @property
    def status_counts(self) -> Counter[str]:
        """The number of runs by status."""
        return Counter(run.status for run in self.runs)

    def list_unreadable(self) -> list[str]:
        """Name the first runs that could not be read, and count the others."""
        said = "not readable, so not counted; to train it again, delete its folder"
        lines = [f"{said}: {line}" for line in self.unreadable]
        if len(lines) > MOST_UNREADABLE:
            others = len(lines) - MOST_UNREADABLE
            lines[MOST_UNREADABLE:] = [f"and {others} more runs that are not readable"]
        return lines


def build_study(collected: CollectedRuns) -> StudyResults:
    """Sort runs into problems and recipes, labelled by the keys in which they differ."""
    flats = [flatten_config(run.config) for run in collected.runs]
    drop_shared_regularizers(flats)
    keys = find_varied_keys(flats)
    short_names = shorten_keys(keys)
    numeric_keys = select_numeric_keys(keys, flats)
    # values are compared as text: 1 and 1.0 are two recipes, and a value need not be hashable
    members: dict[str, dict[str, list[int]]] = {}
    for i, flat in enumerate(flats):
        problem_values, recipe_values = split_values(flat, keys)
        group = members.setdefault(repr(problem_values), {})
        group.setdefault(repr(recipe_values), []).append(i)
    # all members of a group have the same values, so its first one names it
    study = StudyResults([], short_names, numeric_keys, 0, collected.unreadable, collected.refused)
    for groups in members.values():
        first = next(iter(groups.values()))[0]
        problem_values, _ = split_values(flats[first], keys)
        name = format_label(problem_values, short_names)
        if not name:
            name = str(option_name(collected.runs[first].config, "data"))
        problem = LearningProblem(name, problem_values, [])
        for rows in groups.values():
            runs = keep_one_per_seed([collected.runs[row] for row in rows])
            study.repeated += len(rows) - len(runs)
            _, recipe_values = split_values(flats[rows[0]], keys)
            problem.recipes.append(label_recipe(recipe_values, runs, short_names, numeric_keys))
        number_equal_labels(problem.recipes)
        study.problems.append(problem)
    return study


def number_equal_labels(recipes: Sequence[RecipeRuns]) -> None:
    """Append ``(1)``, ``(2)``, … to labels that are alike, as the values differ in later digits."""
    counts = Counter(recipe.label for recipe in recipes)
    numbers: Counter[str] = Counter()
    for recipe in recipes:
        label = recipe.label
        numbers[label] += 1
        if counts[label] > 1:
            recipe.label += f" ({numbers[label]})"


def drop_shared_regularizers(flats: Sequence[dict[str, Any]]) -> None:
    """Take the regularizers that every run has out of each flat configuration, in place."""
    sets = [set(flat[REGULARIZERS].split("+")) for flat in flats]
    shared = set.intersection(*sets) if sets else set()
    for flat, names in zip(flats, sets, strict=True):
        # a label needs a word for no regularizer
        flat[REGULARIZERS] = "+".join(sorted(names - shared - {"none"})) or "plain"


def split_values(flat: FlatConfig, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the values of some keys into the problem's and the recipe's.

    Args:
        flat: a flat configuration.
        keys: dotted keys; those that it lacks are left out.

    Returns:
        The problem's values and the recipe's, by key.
    """
    problem: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    for key in keys:
        if key in flat:
            values = problem if defines_problem(key, flat) else recipe
            values[key] = flat[key]
    return problem, recipe


def keep_one_per_seed(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Keep one run of each seed: a finished one before others, then the one that began last."""
    best: dict[Seed, RunRecord] = {}
    # times in ISO 8601 sort as text, and the last one of a seed stays
    for run in sorted(runs, key=lambda run: (run.status == "finished", run.started)):
        best[run.seed] = run
    chosen = {id(run) for run in best.values()}  # a record holds dictionaries and has no hash
    return [run for run in runs if id(run) in chosen]


def label_recipe(
    values: Mapping[str, Any],
    runs: list[RunRecord],
    short_names: Mapping[str, str],
    numeric_keys: Sequence[str],
) -> RecipeRuns:
    """Gather the runs of a recipe under its labels.

    Args:
        values: the recipe's values of the keys in which runs differ.
        runs: at least one.
        short_names: short names of the keys.
        numeric_keys: the keys that were swept over numbers.

    Returns:
        The recipe. Where runs differ in nothing, it is called by its optimizer.
    """
    options = {key: value for key, value in values.items() if key not in numeric_keys}
    numbers = {key: float(value) for key, value in values.items() if key in numeric_keys}
    optimizer = option_name(runs[0].config, "optimizer")
    label = format_label(values, short_names) or str(optimizer or "recipe")
    method = format_label(options, short_names) or str(optimizer or "all")
    return RecipeRuns(label, method, values, numbers, runs)
