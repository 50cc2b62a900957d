"""The charts of a study: curves, swept numbers, trials spent, and who was fast."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from truerisk.reports.bands import band
from truerisk.reports.budget import best_found
from truerisk.reports.chart import Chart, Charts, Heat, Line
from truerisk.reports.estimate import Estimate
from truerisk.reports.findings import Findings
from truerisk.reports.study import TITLES, Problem, Recipe, Study
from truerisk.reports.target import performance_profile
from truerisk.reports.tuning import Point, grid, initial_risk, profile, sensitivity

MOST = 8
"""Lines of different color that can be told apart."""

CROWD = 25
"""Values of a swept number above which points are not joined: each was drawn by itself."""

SHOWN = 5
"""Recipes whose curves are drawn before a reader picks others."""


def charts(found: Findings, study: Study) -> Charts:
    """Everything that is drawn for one problem."""
    problem = found.problem
    curves = [risk_curves(problem, leading(found))]
    swept = [swept_number(found, key, study.names[key]) for key in study.numeric]
    drawn = Charts([c for c in (*curves, *swept, trials(found)) if c is not None and c.lines])
    for x, y in combinations(study.numeric, 2):
        drawn.heats += heats(found, x, y, study)
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


def spans(values: Sequence[Sequence[float]], factor: float = 20.0) -> bool:
    """Whether the values are positive and span more than a factor, so that a log scale helps."""
    seen = np.array([v for row in values for v in row if np.isfinite(v)])
    return bool(len(seen)) and bool(seen.min() > 0) and bool(seen.max() > factor * seen.min())


def swept_number(found: Findings, key: str, name: str) -> Chart | None:
    """Validation risk, and risk on unseen data, against one swept number, a color a method."""
    problem, lines, notes = found.problem, [], []
    for color, method in enumerate(found.methods[:MOST]):
        recipes = problem.methods[method.name]
        points = profile(problem, recipes, key)
        if len(points) > 1:
            lines += _swept_lines(method.name, points, color, problem.unseen)
            notes.append((method.name, points, sensitivity(points, initial_risk(recipes))))
    if not lines:
        return None
    others = " at the best of the other swept numbers" if len(_keys(found)) > 1 else ""
    y = f"risk{others}; —— validation, – – {TITLES[problem.unseen].partition(' ')[0]}"
    return Chart(
        f"swept-{name.replace('.', '-')}", f"Risk against {name}", name, y, lines,
        log_x=spans([ln.x for ln in lines], 10), log_y=spans([ln.y for ln in lines]),
        note=_swept_note(notes),
    )  # fmt: skip


def _keys(found: Findings) -> set[str]:
    return {key for recipe in found.problem.recipes for key in recipe.numbers}


def _swept_lines(name: str, points: list[Point], color: int, unseen: str) -> list[Line]:
    short = TITLES[unseen].partition(" ")[0]
    sides = [("validation", [p.val for p in points], False)]
    if unseen != "risk/val" and len(points) <= CROWD:
        sides.append((short, [p.unseen for p in points], True))
    return [_estimates(f"{name}, {s}", points, e, color, d) for s, e, d in sides]


def _estimates(
    name: str, points: list[Point], found: list[Estimate], color: int, dashed: bool
) -> Line:
    at = [point.at for point in points]
    mean, low, high = ([getattr(e, part) for e in found] for part in ("mean", "low", "high"))
    n = [e.n for e in found]
    many = len(points) > CROWD
    band: tuple[list[float], list[float]] = ([], []) if many else (low, high)
    return Line(name, at, mean, color, *band, n, dashed=dashed, dots=many)


def _swept_note(methods: Sequence[tuple[str, list[Point], float]]) -> str:
    """What cannot be seen in the lines: how sensitive a method is, and where runs diverged."""
    known = [f"{name} {value:.3g}" for name, _, value in methods if np.isfinite(value)]
    lost = [
        f"{name} at {point.at:g} ({point.diverged:.0%} of runs)"
        for name, points, _ in methods
        for point in points
        if point.diverged
    ]
    told = "Sensitivity, the mean of min(f, f₀) − f* over the values tried (0: none): "
    parts = [told + ", ".join(known)] if known else []
    parts += ["Diverged: " + ", ".join(lost)] if lost else []
    return " ".join(f"{part}." for part in parts)


def heats(found: Findings, x: str, y: str, study: Study) -> list[Heat]:
    """Validation risk against two swept numbers, a map a method."""
    drawn, names = [], study.names
    for i, method in enumerate(found.methods[:MOST]):
        map_ = grid(found.problem, found.problem.methods[method.name], x, y)
        if map_ is not None:
            key = f"map-{names[x]}-{names[y]}".replace(".", "-") + (f"-{i}" if i else "")
            title = f"Validation risk of {method.name}"
            drawn.append(Heat(key, title, names[x], names[y], map_.x, map_.y, map_.risk.tolist()))
    return drawn


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
