"""The page of a report: one HTML file with its data, style and script inside."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from truerisk.reports.charts import HeatMap, LineChart, average_curves, rank_recipes
from truerisk.reports.comparison import RecipeComparison, describe_verdict
from truerisk.reports.findings import (
    ProblemFindings,
    describe_endings,
    describe_study,
    list_failures,
    summarize_findings,
)
from truerisk.reports.learning_problem import (
    LearningProblem,
    RecipeRuns,
    StudyResults,
    title_metric,
)
from truerisk.reports.run_records import CURVES, RunRecord, complete_command
from truerisk.reports.tables import sort_recipes
from truerisk.run import RunFolder
from truerisk.show.style import REPORT_COLORS, write_css_colors

SCRIPTS = ("number.js", "table.js", "chart.js", "page.js")
"""In the order in which they need each other."""

DIGITS = 5
"""Significant digits that the page keeps of a number."""


MOST_CURVES = 300
"""Runs up to which each brings curves of its own: of thousands, the page would be too large."""
MOST_POINTS = 40
"""Epochs of such a curve."""


def build_page(
    folder: Path,
    study: StudyResults,
    findings: Sequence[ProblemFindings],
    charts: Sequence[tuple[list[LineChart], list[HeatMap]]],
    profiles: LineChart | None,
) -> str:
    """Build the page's text.

    Args:
        folder: where the page will lie, as its links to runs are relative.
        study: all runs.
        findings: of each problem.
        charts: charts and maps of each problem.
        profiles: the chart over all problems, if there is one.

    Returns:
        HTML.
    """
    data = build_data(folder, study, findings, charts, profiles)
    parts = {
        "TITLE": html.escape(page_title(folder)),
        # the style sheet knows colors by name, as figures and page share their values
        "STYLE": f"{write_css_colors(REPORT_COLORS)}\n{read_template('style.css')}",
        # no text in the data can end the script element that it stands in
        "DATA": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "SCRIPT": "\n".join(read_template(name) for name in SCRIPTS),
    }
    text = read_template("page.html")
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part)
    return text


def page_title(folder: Path) -> str:
    """Name the page after the study, which is the folder that holds the report."""
    if folder.name == "report":
        return f"{folder.parent.name} · truerisk"
    return "truerisk report"


def read_template(name: str) -> str:
    """Read a file of the page."""
    return (files("truerisk.reports") / "template" / name).read_text(encoding="utf-8")


def build_data(
    folder: Path,
    study: StudyResults,
    findings: Sequence[ProblemFindings],
    charts: Sequence[tuple[list[LineChart], list[HeatMap]]],
    profiles: LineChart | None,
) -> dict[str, Any]:
    """Build the data that the page's script reads.

    Args:
        folder: where the page will lie.
        study: all runs.
        findings: of each problem.
        charts: charts and maps of each problem.
        profiles: the chart over all problems, if there is one.

    Returns:
        Containers, texts and numbers that JSON has.
    """
    problems = zip(findings, charts, strict=True)
    return round_numbers({
        "counted": describe_study(study),
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
        "notes": list_notes(study),
        "titles": {m: title_metric(m) for f in findings for m in f.problem.metrics},
        "problems": [_problem_data(folder, f, *c) for f, c in problems],
        "across": profiles and asdict(profiles),
    })  # fmt: skip


def list_notes(study: StudyResults) -> list[str]:
    """List what was left out of the study, and why."""
    notes = []
    if study.repeated:
        notes.append(
            f"{study.repeated} runs repeat a recipe and seed that is there already; one a seed "
            "counts, a finished one before others, then the latest."
        )
    notes += list_failures(study)
    return notes + study.list_unreadable()


def _problem_data(
    folder: Path, findings: ProblemFindings, charts: list[LineChart], maps: list[HeatMap]
) -> dict[str, Any]:
    """Build what the page shows of one problem; recipes are referred to by their row."""
    problem = findings.problem
    recipes = sort_recipes(problem.recipes, problem.monitor)
    few = sum(len(recipe.runs) for recipe in recipes) <= MOST_CURVES
    shown = problem.monitor.name.rpartition("/")[0] if few else ""
    # the page refers to recipes by their row, which is shorter than a label
    row = {id(recipe): i for i, recipe in enumerate(recipes)}
    return {
        "name": problem.name,
        "said": summarize_findings(findings),
        "metrics": problem.metrics,
        "unseen": problem.unseen_metric,
        "followed": problem.monitor.name,
        "unit": problem.unit,
        "constants": problem.constants,
        "recipes": [_recipe_data(folder, recipe, problem, shown) for recipe in recipes],
        "selected": row[id(findings.selection.recipe)] if findings.selection else None,
        "picked": [row[id(recipe)] for recipe in rank_recipes(findings)],
        "comparisons": {
            metric: [_comparison_data(c) for c in comparisons]
            for metric, comparisons in findings.comparisons.items()
        },
        "methods": _method_data(findings),
        "contest": [_comparison_data(c) for c in findings.method_comparisons],
        "target": findings.time_to_target.target,
        "laws": [law.tell_numbers() for law in findings.scaling.laws],
        # the page draws curves of the recipes that a reader picks
        "charts": [asdict(chart) for chart in charts if chart.key != "curves"],
        "heats": [asdict(heat_map) for heat_map in maps],
    }


def _recipe_data(
    folder: Path, recipe: RecipeRuns, problem: LearningProblem, shown: str
) -> dict[str, Any]:
    """Build a recipe's estimates, curves and runs, these with curves of the quantity shown."""
    metrics, keys = problem.metrics, [*problem.values, *recipe.values]
    own = dict.fromkeys(m for run in recipe.runs for m in run.curves if m not in CURVES)
    curves = {metric: _curve_data(recipe, metric) for metric in (*CURVES, *own)}
    return {
        "label": recipe.label,
        "endings": describe_endings(recipe),
        "runs": [
            {**_run_data(folder, run, metrics, keys), "curves": _own_curves(run, shown)}
            for run in recipe.runs
        ],
        "estimates": {m: recipe.estimate(m) for m in metrics},
        "curves": {metric: curve for metric, curve in curves.items() if curve},
    }


def _curve_data(recipe: RecipeRuns, metric: str) -> dict[str, Any] | None:
    """Build a metric's mean over seeds at every epoch, with its interval if there are several."""
    band = average_curves(recipe.runs, metric)
    if band is None:
        return None
    epoch, mean, low, high, n = (part.tolist() for part in band)
    # bounds of nan would be written as a list of nulls
    if max(n) == 1:
        low = high = []
    return {"x": epoch, "y": mean, "low": low, "high": high, "n": n}


def _own_curves(run: RunRecord, quantity: str) -> dict[str, dict[str, list[float]]]:
    """Build a run's own curves of training and validation, for where no figure of it is drawn."""
    found = {}
    for split in ("train", "val"):
        curve = run.curves.get(f"{quantity}/{split}")
        if curve is not None and len(curve.epoch):
            spaced = np.linspace(0, len(curve.epoch) - 1, MOST_POINTS).round().astype(int)
            kept = np.unique(spaced)
            found[split] = {"x": curve.epoch[kept].tolist(), "y": curve.value[kept].tolist()}
    return found


def _run_data(
    folder: Path, run: RunRecord, metrics: Sequence[str], keys: Sequence[str]
) -> dict[str, Any]:
    """Build a run's values, and links to its files."""
    link = quote(os.path.relpath(run.folder, folder))
    data = run.config.get("data", {})
    return {
        "seed": run.config["seed"]["base"],
        "fold": data.get("fold") if data.get("folds") else None,
        "status": run.status,
        "reason": run.reason.strip().rpartition("\n")[2],  # the last line of a traceback says what
        "name": run.folder.name,
        "folder": f"{link}/",
        "config": f"{link}/{RunFolder.CONFIG}",
        "figures": sorted(file.stem for file in RunFolder(run.folder).figures.glob("*.png")),
        "command": complete_command(run.command, keys, run.config),
        "values": [run.get_value(metric) for metric in metrics],
    }


def _comparison_data(comparison: RecipeComparison) -> dict[str, Any]:
    return {**comparison._asdict(), "verdict": describe_verdict(comparison)}


def _method_data(findings: ProblemFindings) -> list[dict[str, Any]]:
    """Build the rows of methods as tuned."""
    times = findings.time_to_target
    return [
        {
            "name": method.name,
            "trials": method.trials,
            "picked": method.selection.recipe.label,
            "val": method.selection.val,
            "unseen": method.risk,
            "steps": times.steps[method.name],
            "reached": times.reached[method.name],
        }
        for method in findings.methods
    ]


def round_numbers(value: Any) -> Any:
    """Round all numbers in nested containers, with null for those that are not finite.

    >>> round_numbers({"a": (0.123456789, float("nan")), "b": 3})
    {'a': [0.12346, None], 'b': 3}
    """
    if isinstance(value, dict):
        return {key: round_numbers(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [round_numbers(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
