"""Charts of swept numbers: the risk against one of them, and maps of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from truerisk.reports.chart import Chart, Heat, Line, spans
from truerisk.reports.estimate import Estimate
from truerisk.reports.findings import Findings
from truerisk.reports.methods import Tuned
from truerisk.reports.study import TITLES, Problem
from truerisk.reports.tuning import Point, grid, initial_risk, profile, sensitivity

CROWD = 25
"""Values of a number above which points are not joined: each was drawn by itself."""


def swept_number(found: Findings, methods: Sequence[Tuned], key: str, name: str) -> Chart | None:
    """Validation risk, and risk on unseen data, against one swept number, a color a method."""
    problem, lines, notes = found.problem, [], []
    for color, method in enumerate(methods):
        recipes = problem.methods[method.name]
        points = profile(problem, recipes, key)
        if len(points) > 1:
            dots = drawn_at_random(problem, key, points)
            lines += _lines(method.name, points, color, problem.unseen, dots)
            notes.append((method.name, points, sensitivity(points, initial_risk(recipes))))
    if not lines:
        return None
    others = ", at the best of the rest" if len(_keys(problem)) > 1 else ""
    unseen = TITLES[problem.unseen].partition(" ")[0]
    return Chart(
        f"swept-{name.replace('.', '-')}", f"Risk against {name}{others}", name,
        f"risk; —— validation, – – {unseen}", lines, note=_note(notes),
        log_x=spans([ln.x for ln in lines], 8), log_y=spans([ln.y for ln in lines]),
    )  # fmt: skip


def _keys(problem: Problem) -> set[str]:
    return {key for recipe in problem.recipes for key in recipe.numbers}


def drawn_at_random(problem: Problem, key: str, points: Sequence[Point]) -> bool:
    """Whether nearly every recipe has a value of its own, while other numbers vary with it."""
    recipes = [recipe for recipe in problem.recipes if key in recipe.numbers]
    values = {recipe.numbers[key] for recipe in recipes}
    alone = len(_keys(problem)) > 1 and len(values) > 0.8 * len(recipes)
    return len(points) > CROWD or (alone and len(points) > 4)


def _lines(name: str, points: list[Point], color: int, unseen: str, dots: bool) -> list[Line]:
    """One line where they are dots, else one for either risk."""
    lines = [_line(f"{name}, validation", points, [p.val for p in points], color, dots)]
    if unseen != "risk/val" and not dots:
        other = f"{name}, {TITLES[unseen].partition(' ')[0]}"
        lines.append(_line(other, points, [p.unseen for p in points], color, dots, dashed=True))
    return lines


def _line(
    name: str, points: list[Point], found: list[Estimate], color: int, dots: bool,
    dashed: bool = False,
) -> Line:  # fmt: skip
    at, n = [point.at for point in points], [e.n for e in found]
    mean, low, high = ([getattr(e, part) for e in found] for part in ("mean", "low", "high"))
    band: tuple[list[float], list[float]] = ([], []) if dots else (low, high)
    return Line(name, at, mean, color, *band, n, dashed=dashed, dots=dots)


def _note(methods: Sequence[tuple[str, list[Point], float]]) -> str:
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


def heats(
    found: Findings, methods: Sequence[Tuned], x: str, y: str, names: Mapping[str, str]
) -> list[Heat]:
    """Validation risk against two swept numbers, a map a method."""
    drawn = []
    for i, method in enumerate(methods):
        map_ = grid(found.problem, found.problem.methods[method.name], x, y)
        if map_ is not None:
            key = f"map-{names[x]}-{names[y]}".replace(".", "-") + (f"-{i}" if i else "")
            title = f"Validation risk of {method.name}"
            drawn.append(Heat(key, title, names[x], names[y], map_.x, map_.y, map_.risk.tolist()))
    return drawn
