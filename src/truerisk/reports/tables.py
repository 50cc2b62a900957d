"""The tables of a report: Markdown, LaTeX, terminal, and one tidy file of all numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from truerisk.core.atomic_files import replacing
from truerisk.reports.comparison import describe_verdict
from truerisk.reports.findings import (
    MISSING,
    ProblemFindings,
    describe_endings,
    format_interval,
    format_mean,
    format_p_value,
)
from truerisk.reports.learning_problem import RecipeRuns, StudyResults, title_metric
from truerisk.risk.measured import FOLLOWED_RISK, Monitor

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

LATEX = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$", "−": "$-$",
    "–": "--", "<": "$<$", ">": "$>$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
}  # fmt: skip


class TextTable(NamedTuple):
    """Cells of text under headings; the first column names the rows."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    below: int = 0
    """how many of the last rows stand below what the others are, and are always shown"""


def metric_scale(metric: str) -> float:
    """Return what a metric is multiplied by: errors are shown in per cent."""
    if metric.startswith("error/"):
        return 100.0
    return 1.0


def metric_heading(metric: str) -> str:
    """Write a metric's name, and its unit, above its column."""
    if metric.startswith("error/"):
        return f"{title_metric(metric)}, %"
    return title_metric(metric)


def tabulate_recipes(findings: ProblemFindings, metrics: Sequence[str] | None = None) -> TextTable:
    """Tabulate each recipe's mean and standard error over seeds, lowest validation risk first.

    Args:
        findings: of one problem.
        metrics: the columns; by default all that were measured.

    Returns:
        A row a recipe.
    """
    problem = findings.problem
    if metrics is None:
        metrics = problem.metrics
    rows = []
    for recipe in sort_recipes(problem.recipes, problem.monitor):
        estimates = [recipe.estimate(m) for m in metrics]
        cells = [format_mean(e, metric_scale(m)) for e, m in zip(estimates, metrics, strict=True)]
        rows.append([recipe.label, describe_endings(recipe), *cells])
    constants = problem.constants
    if constants and rows:
        means = [
            format_mean(constants[m], metric_scale(m)) if m in constants else MISSING
            for m in metrics
        ]
        rows.append(["best constant", "", *means])
    headings = ["recipe", "runs", *map(metric_heading, metrics)]
    title = f"{problem.name}: mean ± standard error over {problem.unit}s"
    return TextTable(title, headings, rows, below=len(rows) - len(problem.recipes))


def tabulate_main_metrics(findings: ProblemFindings) -> TextTable:
    """Tabulate what a terminal has room for: validation risk, and risk and error on unseen data."""
    problem = findings.problem
    error = f"error/{problem.unseen_metric.rpartition('/')[2]}"
    # a dictionary, as the validation risk may be the unseen one too
    followed = [problem.monitor.name, problem.unseen_metric]
    metrics = dict.fromkeys([*followed, error])
    if problem.monitor != FOLLOWED_RISK:  # a line of 80 characters holds no more
        metrics = dict.fromkeys([*followed, *problem.unseen_risks])
    return tabulate_recipes(findings, [m for m in metrics if m in problem.metrics])


def sort_recipes(
    recipes: Sequence[RecipeRuns], monitor: Monitor = FOLLOWED_RISK
) -> list[RecipeRuns]:
    """Sort by what recipes are picked by; those without it, and those that diverged, come last.

    Args:
        recipes: of one problem.
        monitor: the validation risk, or what was followed instead.
    """

    def sort_key(recipe: RecipeRuns) -> tuple[bool, bool, float, str]:
        score = recipe.estimate(monitor.name)
        # False sorts before True
        diverged = recipe.diverged_share > 0
        return (not score.n, diverged, monitor.orient(score.mean), recipe.label)

    return sorted(recipes, key=sort_key)


def tabulate_comparisons(findings: ProblemFindings, metric: str) -> TextTable:
    """Tabulate differences with intervals, p-values, effects and probabilities of improvement.

    Args:
        findings: of one problem.
        metric: one of those compared.

    Returns:
        A row a comparison.
    """
    rows = []
    for c in findings.comparisons[metric]:
        difference = format_interval(c.difference, metric_scale(metric))
        p_values = [format_p_value(c.p), format_p_value(c.adjusted)]
        better = f"{c.improvement.probability:.2f}"
        if math.isfinite(c.improvement.low):
            better += f" [{c.improvement.low:.2f}, {c.improvement.high:.2f}]"
        effects = [f"{c.effect:.2f}", better]
        name, n = f"{c.first} − {c.second}", str(c.difference.n)
        rows.append([name, n, difference, *p_values, *effects, describe_verdict(c)])
    unit = findings.problem.unit
    headings = ["difference", f"{unit}s", "mean [95 %]", "p", "p, Holm", "effect"]
    headings += ["P(first better) [95 %]", ""]
    title = f"{findings.problem.name}: differences in {metric_heading(metric)}"
    return TextTable(title, headings, rows)


def tabulate_methods(findings: ProblemFindings) -> TextTable:
    """Tabulate methods as tuned on validation."""
    times = findings.time_to_target
    rows = []
    for method in findings.methods:
        picked = [method.selection.recipe.label, format_mean(method.selection.val)]
        steps = f"{times.steps[method.name]:g}"
        rows.append([method.name, str(method.trials), *picked, format_mean(method.risk), steps])
    goal = f"steps to {times.target:.3g}"
    problem = findings.problem
    unseen = f"{title_metric(problem.unseen_metric)}, cross-fitted"
    picked_by = title_metric(problem.monitor.name)
    headings = ["method", "settings", "picked", picked_by, unseen, goal]
    return TextTable(
        f"{findings.problem.name}: methods at their best on validation", headings, rows
    )


def build_tables(findings: ProblemFindings) -> dict[str, TextTable]:
    """Build all tables of a problem that have rows, by the stems of their files."""
    tables = {"recipes": tabulate_recipes(findings)}
    for metric in findings.comparisons:
        stem = f"comparisons-{metric.replace('/', '-')}"
        tables[stem] = tabulate_comparisons(findings, metric)
    if len(findings.methods) > 1:
        tables["methods"] = tabulate_methods(findings)
    return {stem: table for stem, table in tables.items() if table.rows}


def render_markdown(table: TextTable) -> str:
    """Render a table in Markdown.

    >>> print(render_markdown(TextTable("risks", ["recipe", "risk"], [["a|b", "0.5"]])))
    **risks**
    <BLANKLINE>
    | recipe | risk |
    |:--|--:|
    | a\\|b | 0.5 |
    <BLANKLINE>
    """
    # a bar in a label would end its cell
    rows = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (table.headings, *table.rows)
    ]
    rule = "|:--|" + "--:|" * (len(table.headings) - 1)
    return "\n".join([f"**{table.title}**", "", rows[0], rule, *rows[1:]]) + "\n"


def render_latex(table: TextTable) -> str:
    """Render a table in LaTeX, for the booktabs package.

    >>> print(render_latex(TextTable("risks", ["recipe", "risk"], [["a_b", "0.5 ± 0.1"]])))
    % risks; needs \\usepackage{booktabs}
    \\begin{tabular}{lr}
    \\toprule
    recipe & risk \\\\
    \\midrule
    a\\_b & 0.5 $\\pm$ 0.1 \\\\
    \\bottomrule
    \\end{tabular}
    <BLANKLINE>
    """
    rows = [" & ".join(map(escape_latex, row)) + r" \\" for row in (table.headings, *table.rows)]
    columns = "l" + "r" * (len(table.headings) - 1)
    parts = [
        rf"% {table.title}; needs \usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def escape_latex(text: str) -> str:
    """Replace characters that LaTeX would not print."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def render_terminal(table: TextTable, most: int = 12, width: int = 80) -> Table:
    """Render a table's first rows for the terminal, and those that stand below.

    Names too long for a narrow window are broken where their parts meet; where that would leave
    less than `LEAST_NAME` letters of a line, the last columns are left out, and named below.

    Args:
        table: the table.
        most: the number of rows, of those that do not stand below.
        width: letters of a line of the terminal.

    Returns:
        What rich prints.
    """
    from rich.table import Table, box
    from rich.text import Text

    headings, last = table.headings, len(table.rows) - table.below
    rows = table.rows[: min(most, last)]
    if last > most:
        rows = [*rows, [f"… {last - most} more", *[""] * (len(headings) - 1)]]
    rows = [*rows, *table.rows[last:]]
    longest = max((len(row[0]) for row in rows), default=0)
    room = _name_width(headings, rows, width)
    if longest > room:
        # in two lines they take less
        headings = [headings[0], *(heading.replace(" ", "\n", 1) for heading in headings[1:])]
        rows = [[row[0], *(cell.replace(", ", ",\n") for cell in row[1:])] for row in rows]
    while longest > (room := _name_width(headings, rows, width)) and room < LEAST_NAME:
        if len(headings) <= 3:
            break
        headings = headings[:-1]
    rendered = Table(title=table.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    room = min(longest, max(room, LEAST_NAME))
    rendered.add_column(headings[0], overflow="fold", min_width=room)
    for name in headings[1:]:
        # numbers are never cut; where the window is narrow the count of runs folds, then the names
        rendered.add_column(name, justify="right", no_wrap=name != "runs")
    for name, *cells in rows:
        # a name such as [l2,dropout] is no markup of rich's
        rendered.add_row(Text(break_name(name, room)), *cells[: len(headings) - 1])
    left_out = table.headings[len(headings) :]
    if left_out:
        rendered.caption = f"no room here, but on the page: {'; '.join(left_out)}"
        rendered.caption_justify = "left"
    return rendered


LEAST_NAME = 24
"""Letters of a recipe's name that a line of the terminal has room for."""


def _name_width(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Return the letters that the other columns leave for names."""
    taken = 2
    for i, heading in enumerate(headings[1:], 1):
        cells = [heading, *(row[i] for row in rows)]
        taken += 3 + max(len(line) for cell in cells for line in cell.split("\n"))
    return width - taken


def break_name(name: str, width: int) -> str:
    """Break a recipe's name into lines where its parts meet, the later ones set in.

    Args:
        name: of a recipe.
        width: letters of a line.

    >>> print(break_name("adam regularizer=[l2,dropout] lr=0.1", 26))
    adam
      regularizer=[l2,dropout]
      lr=0.1
    >>> print(break_name("widths=[100,100],momentum=0.999,lr=0.1", 24))
    widths=[100,100],
      momentum=0.999,lr=0.1
    """
    lines: list[str] = [""]
    for part in _split_name(name, width - 2):
        if lines[-1].strip() and len((lines[-1] + part).rstrip()) > width:
            lines.append("  ")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


SEAMS = (
    r"(?<= )",
    r"(?<=,)(?![^\[]*\])",  # between keys: the comma of a list is followed by its end
    r"(?<==)",
    r"(?<=[,+])",
    r"(?<=[/_])",
    r"(?<=[.:-])",
    r"(?<=[a-z])(?=[A-Z])",
)
"""Where a name may be broken, the best places first."""


def _split_name(text: str, width: int, seams: Sequence[str] = SEAMS) -> list[str]:
    """Split what is longer than a line at the best seams that make it shorter."""
    if len(text.rstrip()) <= width or not seams:
        return [text]
    parts = re.split(seams[0], text)
    return [piece for part in parts for piece in _split_name(part, width, seams[1:])]


def tidy_results(study: StudyResults) -> pd.DataFrame:
    """Table everything measured: a row a run and metric.

    Returns:
        Columns problem, recipe, the keys that differ, seed, folder, status, metric, value, stderr,
        epoch. A run that measured nothing has one row without a metric, so that none is missing.
    """
    import pandas as pd

    columns: dict[str, list[Any]] = {}
    count = 0
    # a list a column: a mapping a row would take more memory than all that was read
    for count, row in enumerate(_iterate_rows(study), 1):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column += [None] * (count - 1 - len(column))
            column.append(value)
    for column in columns.values():
        column += [None] * (count - len(column))
    table = pd.DataFrame(columns)
    # pandas' own integers have no missing value, and a column of floats would write epoch 3.0
    return table.astype({"epoch": "Int64"}) if "epoch" in table else table


def _iterate_rows(study: StudyResults) -> Iterator[dict[str, Any]]:
    """Yield the rows of `tidy_results`, in the order of problems, recipes and runs."""
    for problem in study.problems:
        for recipe in problem.recipes:
            values = {**problem.values, **recipe.values}
            keys = {name: values.get(key) for key, name in study.short_names.items()}
            shared = {"problem": problem.name, "recipe": recipe.label, **keys}
            for run in recipe.runs:
                row = {**shared, "seed": run.config["seed"]["base"], "folder": str(run.folder)}
                row["status"] = run.status
                for name, measured in run.summary.items():
                    yield {**row, "metric": name, **measured._asdict()}
                # so that readers of the file can count the runs that failed
                if not run.summary:
                    yield row


def write_results(study: StudyResults, folder: Path) -> list[Path]:
    """Write ``results.csv``, and ``results.parquet`` where pyarrow is installed.

    Args:
        study: the study.
        folder: where to; it must exist.

    Returns:
        The files written.
    """
    table = tidy_results(study)
    written = [folder / "results.csv"]
    with replacing(written[0]) as part:
        table.to_csv(part, index=False)
    if find_spec("pyarrow"):
        # parquet wants one type a column, and a key may be a number here and a word there
        mixed = [name for name in table if table[name].dtype == object]
        written.append(folder / "results.parquet")
        with replacing(written[1]) as part:
            table.astype(dict.fromkeys(mixed, "string")).to_parquet(part, index=False)
    return written
