"""What the page is given: everything a report says, as plain containers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from truerisk.reports.bands import band
from truerisk.reports.chart import Chart, Charts
from truerisk.reports.charts import leading
from truerisk.reports.collect import CURVES, Run
from truerisk.reports.command import completed
from truerisk.reports.compare import Comparison, verdict
from truerisk.reports.estimate import estimate
from truerisk.reports.findings import Findings
from truerisk.reports.study import TITLES, Problem, Recipe, Study
from truerisk.reports.tables import ordered
from truerisk.reports.text import counted, endings, headline
from truerisk.run import RunFolder

DIGITS = 5
"""Significant digits that the page keeps of a number."""


def payload(
    where: Path,
    study: Study,
    found: Sequence[Findings],
    drawn: Sequence[Charts],
    across: Chart | None,
) -> dict[str, Any]:
    """The page's data, with paths relative to ``where`` the page lies."""
    pairs = zip(found, drawn, strict=True)
    return plain({
        "counted": counted(study),
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
        "notes": notes(study),
        "titles": TITLES,
        "problems": [problem(where, f, c) for f, c in pairs],
        "across": asdict(across) if across else None,
    })  # fmt: skip


def notes(study: Study) -> list[str]:
    """What was left out, and why."""
    told = []
    if study.repeated:
        told.append(
            f"{study.repeated} runs repeat a recipe and seed that is there already; one a seed "
            "counts, a finished one before others, then the latest."
        )
    told += [f"Not readable, so not counted: {line}" for line in study.unreadable]
    return told


def problem(where: Path, found: Findings, drawn: Charts) -> dict[str, Any]:
    """One problem's findings."""
    recipes = ordered(found.problem.recipes)
    place = {id(recipe): i for i, recipe in enumerate(recipes)}
    return {
        "name": found.problem.name,
        "said": headline(found),
        "metrics": found.problem.metrics,
        "unseen": found.problem.unseen,
        "recipes": [recipe(where, r, found.problem) for r in recipes],
        "selected": place[id(found.selection.recipe)] if found.selection else None,
        "picked": [place[id(r)] for r in leading(found)],
        "comparisons": {m: [comparison(c) for c in cs] for m, cs in found.comparisons.items()},
        "methods": methods(found),
        "contest": [comparison(c) for c in found.contest],
        "target": found.race.target if found.race else None,
        "charts": [asdict(chart) for chart in drawn.lines if chart.key != "curves"],
        "heats": [asdict(heat) for heat in drawn.heats],
    }


def recipe(where: Path, of: Recipe, problem: Problem) -> dict[str, Any]:
    """A recipe's estimates, curves and runs."""
    metrics, keys = problem.metrics, [*problem.values, *of.values]
    return {
        "label": of.label,
        "endings": endings(of),
        "runs": [run(where, r, metrics, keys) for r in of.runs],
        "estimates": {m: estimate(list(of.series(m).values())) for m in metrics},
        "curves": {name: curve(of, name) for name in CURVES if band(of.runs, name) is not None},
    }


def curve(of: Recipe, name: str) -> dict[str, Any]:
    """A metric's mean over seeds at every epoch."""
    found = band(of.runs, name)
    assert found is not None
    epoch, mean, low, high, n = (part.tolist() for part in found)
    several = max(n, default=0) > 1
    return {"x": epoch, "y": mean, "low": low if several else [], "high": high if several else [],
            "n": n}  # fmt: skip


def run(where: Path, of: Run, metrics: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """A run, and the way to its files."""
    way = quote(os.path.relpath(of.folder, where))
    return {
        "seed": of.config["seed"]["base"],
        "status": of.status,
        "reason": of.reason.strip().rpartition("\n")[2],
        "name": of.folder.name,
        "folder": f"{way}/",
        "config": f"{way}/{RunFolder.CONFIG}",
        "command": completed(of.command, keys, of.config),
        "values": [of.value(metric) for metric in metrics],
    }


def comparison(c: Comparison) -> dict[str, Any]:
    """A comparison and its verdict."""
    return {**c._asdict(), "verdict": verdict(c)}


def methods(found: Findings) -> list[dict[str, Any]]:
    """The methods as tuned."""
    rows = []
    for m in found.methods:
        steps, reached = (
            (found.race.steps[m.name], found.race.reached[m.name]) if found.race else (None, None)
        )
        rows.append({
            "name": m.name, "trials": m.trials, "picked": m.selection.recipe.label,
            "val": m.selection.val, "unseen": m.risk, "steps": steps, "reached": reached,
        })  # fmt: skip
    return rows


def plain(value: Any) -> Any:
    """Containers and numbers that JSON has: rounded, and null for what is no number.

    >>> plain({"a": (0.123456789, float("nan")), "b": 3})
    {'a': [0.12346, None], 'b': 3}
    """
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
