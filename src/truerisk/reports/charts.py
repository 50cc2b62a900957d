"""The charts of a study: curves, swept numbers, trials spent, and who was fast."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from truerisk.reports.bands import band
from truerisk.reports.budget import best_found
from truerisk.reports.chart import Chart, Charts, Line, spans
from truerisk.reports.findings import Findings
from truerisk.reports.study import TITLES, Problem, Recipe, Study
from truerisk.reports.swept import heats, swept_number
from truerisk.reports.target import performance_profile
from truerisk.reports.tuning import initial_risk

MOST = 8
"""Lines of different color that can be told apart."""

SHOWN = 5
"""Recipes whose curves are drawn before a reader picks others."""


def charts(found: Findings, study: Study) -> Charts:
    """Everything that is drawn for one problem."""
    problem = found.problem
    curves = [risk_curves(problem, leading(found))]
    methods = found.methods[:MOST]
    swept = [swept_number(found, methods, key, study.names[key]) for key in study.numeric]
    drawn = Charts([c for c in (*curves, *swept, trials(found)) if c is not None and c.lines])
    for x, y in combinations(study.numeric, 2):
        drawn.heats += heats(found, methods, x, y, study.names)
    return drawn


def leading(found: Findings, most: int = SHOWN) -> list[Recipe]:
    """The best recipe of each method on validation, then the best of the rest."""
    best = [method.selection.recipe for method in found.methods]
    score = {id(r): _mean(r.series("risk/val")) for r in found.problem.recipes}
    rest = sorted(found.problem.recipes, key=lambda r: (r.diverged, score[id(r)]))
    return list({id(r): r for r in (*best, *rest)}.values())[:most]


def _mean(series: dict[tuple[int, ...], float]) -> float:
    return sum(series.values()) / len(series) if series else float("inf")


def risk_curves(problem: Problem, recipes: Sequence[Recipe]) -> Chart:
    """Train and validation risk over epochs, on the same axes."""
    lines = []
    for color, recipe in enumerate(recipes):
        for name, dashed in (("risk/train", True), ("risk/val", False)):
            line = curve_line(recipe, name, color, dashed)
            lines += [line] if line else []
    y = "risk; – – train, —— validation"
    return Chart("curves", "Curves", "epoch", y, lines, log_y=spans([ln.y for ln in lines]))


def curve_line(recipe: Recipe, name: str, color: int, dashed: bool) -> Line | None:
    """A recipe's mean curve over seeds with its band."""
    found = band(recipe.runs, name)
    if found is None or not len(found.epoch):
        return None
    title = f"{recipe.label}, {TITLES[name].partition(' ')[0]}"
    parts = (p.tolist() for p in found)
    epoch, mean, low, high, n = parts
    return Line(title, epoch, mean, color, low, high, n, dashed=dashed)


def trials(found: Findings) -> Chart | None:
    """The expected best of n trials against n, a color a method, so that budgets are equal."""
    lines = []
    for color, method in enumerate(found.methods[:MOST]):
        lines += _trial_lines(found.problem, method.name, color)
    if not any(len(line.x) > 1 for line in lines):
        return None
    y = f"expected risk of the best; —— validation, – – {TITLES[found.problem.unseen].split()[0]}"
    note = (
        "The best of n settings by mean validation risk, over all ways to draw n of those tried; "
        "band: the middle half of draws. Where a run diverged, the risk before training counts."
    )
    title = "Best found against trials spent"
    log_x = max(len(line.x) for line in lines) > 20
    log_y = spans([line.y for line in lines])
    return Chart("trials", title, "settings tried", y, lines, log_x, log_y, note)


def _trial_lines(problem: Problem, name: str, color: int) -> list[Line]:
    recipes = problem.methods[name]
    initial = initial_risk(recipes)
    val, unseen = (np.array([_score(r, m, initial) for r in recipes])
                   for m in ("risk/val", problem.unseen))  # fmt: skip
    kept = np.isfinite(val) & np.isfinite(unseen)
    if not kept.any():
        return []
    best = best_found(val[kept], unseen[kept])
    n, low, high = best.trials.tolist(), best.low.tolist(), best.high.tolist()
    lines = [Line(f"{name}, validation", n, best.val.tolist(), color, low, high)]
    if problem.unseen != "risk/val":
        other = TITLES[problem.unseen].split()[0]
        lines.append(Line(f"{name}, {other}", n, best.unseen.tolist(), color, dashed=True))
    return lines


def _score(recipe: Recipe, metric: str, initial: float) -> float:
    """The mean over seeds; that before training where a run diverged."""
    values = recipe.scores(metric).values()
    return float(np.mean([v if np.isfinite(v) else initial for v in values] or [np.nan]))


def profiles(found: Sequence[Findings]) -> Chart | None:
    """How often each method is nearly the fastest to a target, over several problems."""
    races = [f.race for f in found if f.race is not None and len(f.race.steps) > 1]
    if len(races) < 2:
        return None
    shares = performance_profile([race.steps for race in races])
    far = max(float(ratio[-1]) for ratio, _ in shares.values()) * 1.2
    lines = [
        Line(name, [*r.tolist(), far], [*s.tolist(), s[-1]], i, steps=True)
        for i, (name, (r, s)) in enumerate(list(shares.items())[:MOST])
    ]
    note = "Share of problems on which a tuned method reaches the target within r times the steps "
    note += "of the fastest. Steps of different methods need not cost the same."
    return Chart("profiles", "Performance profiles", "r", "share of problems", lines, note=note,
                 log_x=far > 10)  # fmt: skip
