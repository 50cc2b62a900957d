"""Runs sorted into problems, recipes and seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from truerisk.logger.label import option_name
from truerisk.reports import recipe as naming
from truerisk.reports.collect import Collected, Run

TITLES = {
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

ENDINGS = ("finished", "diverged", "failed", "interrupted", "running")

Seed = tuple[int, ...]


@dataclass
class Recipe:
    """A configuration without its seeds, on one problem, and its runs: one a seed."""

    label: str
    method: str
    """the label without the numbers that were swept"""
    values: Mapping[str, Any]
    """the keys in which recipes differ"""
    numbers: Mapping[str, float]
    """those of them that are numbers"""
    runs: list[Run]

    @property
    def counts(self) -> Counter[str]:
        """How many runs ended in which way."""
        return Counter(run.status for run in self.runs)

    @property
    def diverged(self) -> float:
        """The share of runs that diverged, of those that finished or diverged."""
        ended = self.counts["finished"] + self.counts["diverged"]
        return self.counts["diverged"] / ended if ended else 0.0

    def series(self, metric: str) -> dict[Seed, float]:
        """A metric by seed, for the runs that finished and measured it."""
        values = {run.seed: run.value(metric) for run in self.runs if run.status == "finished"}
        return {seed: value for seed, value in values.items() if math.isfinite(value)}

    def scores(self, metric: str) -> dict[Seed, float]:
        """A metric by seed, where a run that diverged counts as infinite risk."""
        lost = {run.seed: math.inf for run in self.runs if run.status == "diverged"}
        return {**lost, **self.series(metric)}


@dataclass
class Problem:
    """What is learned, and the recipes that were tried on it."""

    name: str
    values: Mapping[str, Any]
    recipes: list[Recipe]

    @property
    def metrics(self) -> list[str]:
        """The metrics that were measured, in the order in which they are shown."""
        seen = {m for r in self.recipes for run in r.runs for m in run.summary}
        return [metric for metric in TITLES if metric in seen]

    @property
    def unseen(self) -> str:
        """The metric that estimates the risk on unseen data: test, else true, else validation."""
        wanted = [m for m in ("risk/test", "risk/true", "risk/val") if m in self.metrics]
        return wanted[0] if wanted else "risk/val"

    @property
    def methods(self) -> dict[str, list[Recipe]]:
        """The recipes that differ in nothing but numbers, by the label they share."""
        found: dict[str, list[Recipe]] = {}
        for recipe in self.recipes:
            found.setdefault(recipe.method, []).append(recipe)
        return found

    def matrix(self, metric: str, recipes: Sequence[Recipe] | None = None) -> np.ndarray:
        """A metric as [seeds, recipes]: infinite where a run diverged, nan where there is none."""
        columns = [r.scores(metric) for r in (self.recipes if recipes is None else recipes)]
        return np.array([[c.get(s, math.nan) for c in columns] for s in self.seeds], dtype=float)

    @property
    def seeds(self) -> list[Seed]:
        """The seeds of all recipes, in the order met."""
        return list(dict.fromkeys(run.seed for r in self.recipes for run in r.runs))


@dataclass
class Study:
    """Everything a report is about."""

    problems: list[Problem]
    names: Mapping[str, str]
    """short names of the keys in which runs differ"""
    numeric: list[str]
    """the keys that were swept over numbers"""
    repeated: int = 0
    """runs of the same recipe and seed as another, which do not count"""
    unreadable: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """All runs that count."""
        return [run for p in self.problems for recipe in p.recipes for run in recipe.runs]

    @property
    def counts(self) -> Counter[str]:
        """How many runs ended in which way."""
        return Counter(run.status for run in self.runs)


def build(collected: Collected) -> Study:
    """Sort runs into problems and recipes, named by what differs among them."""
    flats = [naming.flatten(run.config) for run in collected.runs]
    drop_shared_regularizers(flats)
    keys = naming.varied(flats)
    names = naming.short_names(keys)
    numeric = naming.numeric(keys, flats)
    sorted_: dict[str, dict[str, list[int]]] = {}
    for i, flat in enumerate(flats):
        problem, recipe = split(flat, keys)
        sorted_.setdefault(repr(problem), {}).setdefault(repr(recipe), []).append(i)
    study = Study([], names, numeric, unreadable=collected.unreadable)
    for recipes in sorted_.values():
        first = next(iter(recipes.values()))[0]
        values, _ = split(flats[first], keys)
        name = naming.label(values, names) or str(option_name(collected.runs[first].config, "data"))
        problem_ = Problem(name, values, [])
        for members in recipes.values():
            runs = once([collected.runs[i] for i in members])
            study.repeated += len(members) - len(runs)
            problem_.recipes.append(make(split(flats[members[0]], keys)[1], runs, names, numeric))
        tell_apart(problem_.recipes)
        study.problems.append(problem_)
    return study


def tell_apart(recipes: Sequence[Recipe]) -> None:
    """Number the recipes whose labels are alike, as they differ in later digits only."""
    again = Counter(recipe.label for recipe in recipes)
    seen: Counter[str] = Counter()
    for recipe in recipes:
        seen[recipe.label] += 1
        if again[recipe.label] > 1:
            recipe.label += f" ({seen[recipe.label]})"


def drop_shared_regularizers(flats: Iterable[dict[str, Any]]) -> None:
    """Leave out of the set of regularizers those that every run has."""
    flats = list(flats)
    sets = [set(flat[naming.SET].split("+")) for flat in flats]
    shared = set.intersection(*sets) if sets else set()
    for flat, names in zip(flats, sets, strict=True):
        flat[naming.SET] = "+".join(sorted(names - shared - {"none"})) or "plain"


def split(flat: naming.Flat, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys that differ, and their values: the problem's, and the recipe's."""
    own = {key: flat[key] for key in keys if key in flat}
    problem = {key: value for key, value in own.items() if naming.of_problem(key, flat)}
    return problem, {key: value for key, value in own.items() if key not in problem}


def once(runs: Sequence[Run]) -> list[Run]:
    """One run a seed: a finished one before others, then the one that started last."""
    best: dict[Seed, Run] = {}
    for run in sorted(runs, key=lambda run: (run.status == "finished", run.started)):
        best[run.seed] = run
    kept = {id(run) for run in best.values()}
    return [run for run in runs if id(run) in kept]


def make(
    values: Mapping[str, Any], runs: list[Run], names: Mapping[str, str], numeric: Sequence[str]
) -> Recipe:
    """A recipe, named."""
    rest = {key: value for key, value in values.items() if key not in numeric}
    numbers = {key: float(value) for key, value in values.items() if key in numeric}
    whole = naming.label(values, names) or str(option_name(runs[0].config, "optimizer") or "recipe")
    method = naming.label(rest, names) or str(option_name(runs[0].config, "optimizer") or "all")
    return Recipe(whole, method, values, numbers, runs)
