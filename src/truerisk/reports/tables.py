"""The tables of a report, as Markdown, LaTeX and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from truerisk.reports.compare import verdict
from truerisk.reports.estimate import estimate
from truerisk.reports.findings import Findings
from truerisk.reports.study import TITLES, Recipe
from truerisk.reports.text import endings, interval, mean, p_value

if TYPE_CHECKING:
    from rich.table import Table

LATEX = {
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$", "−": "$-$",
    "–": "--", "<": "$<$", ">": "$>$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
}  # fmt: skip


class Sheet(NamedTuple):
    """Cells of text under headings, the first column being names."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def scale(metric: str) -> float:
    """Errors are shown in per cent."""
    return 100.0 if metric.startswith("error/") else 1.0


def heading(metric: str) -> str:
    """A metric's name above its column."""
    return TITLES[metric] + (", %" if metric.startswith("error/") else "")


def recipes_sheet(found: Findings, metrics: Sequence[str] | None = None) -> Sheet:
    """Each recipe's risks and errors: mean and standard error over seeds, lowest first."""
    problem = found.problem
    metrics = problem.metrics if metrics is None else metrics
    rows = []
    for recipe in ordered(problem.recipes):
        estimates = [estimate(list(recipe.series(m).values())) for m in metrics]
        cells = [mean(e, scale(m)) for e, m in zip(estimates, metrics, strict=True)]
        rows.append([recipe.label, endings(recipe), *cells])
    headings = ["recipe", "runs", *(heading(m) for m in metrics)]
    return Sheet(f"{problem.name}: mean ± standard error over seeds", headings, rows)


def short_sheet(found: Findings) -> Sheet:
    """What a terminal has room for: validation risk, and risk and error on unseen data."""
    problem = found.problem
    error = problem.unseen.replace("risk", "error")
    metrics = dict.fromkeys(["risk/val", problem.unseen, error])
    return recipes_sheet(found, [m for m in metrics if m in problem.metrics])


def ordered(recipes: Sequence[Recipe]) -> list[Recipe]:
    """The recipes by validation risk; those without, and those that diverged, last."""
    means = {id(r): estimate(list(r.series("risk/val").values())) for r in recipes}
    return sorted(
        recipes, key=lambda r: (not means[id(r)].n, r.diverged > 0, means[id(r)].mean, r.label)
    )


def comparisons_sheet(found: Findings, metric: str) -> Sheet:
    """Differences with intervals, p-values, effects and the probability of improvement."""
    rows = []
    for c in found.comparisons[metric]:
        better = c.improvement.probability
        rows.append([
            f"{c.first} − {c.second}", str(c.difference.n), interval(c.difference, scale(metric)),
            p_value(c.p), p_value(c.adjusted), f"{c.effect:.2f}", f"{better:.2f}", verdict(c),
        ])  # fmt: skip
    headings = [
        "difference",
        "seeds",
        "mean [95 %]",
        "p",
        "p, Holm",
        "effect",
        "P(first lower)",
        "",
    ]
    return Sheet(f"{found.problem.name}: differences in {heading(metric)}", headings, rows)


def methods_sheet(found: Findings) -> Sheet:
    """Methods as tuned on validation."""
    rows = []
    for m in found.methods:
        steps = found.race.steps[m.name] if found.race else float("nan")
        rows.append([
            m.name, str(m.trials), m.selection.recipe.label, mean(m.selection.val),
            mean(m.risk), f"{steps:g}",
        ])  # fmt: skip
    unseen = TITLES[found.problem.unseen]
    goal = f"steps to {found.race.target:.3g}" if found.race else "steps"
    headings = ["method", "settings", "picked", "validation risk", f"{unseen}, cross-fitted", goal]
    return Sheet(f"{found.problem.name}: methods at their best on validation", headings, rows)


def sheets(found: Findings) -> dict[str, Sheet]:
    """All tables of a problem, by the names of their files."""
    named = {"recipes": recipes_sheet(found)}
    for metric in found.comparisons:
        named[f"comparisons-{metric.replace('/', '-')}"] = comparisons_sheet(found, metric)
    if len(found.methods) > 1:
        named["methods"] = methods_sheet(found)
    return {name: sheet for name, sheet in named.items() if sheet.rows}


def markdown(sheet: Sheet) -> str:
    """The table in Markdown.

    >>> print(markdown(Sheet("risks", ["recipe", "risk"], [["a|b", "0.5"]])))
    **risks**
    <BLANKLINE>
    | recipe | risk |
    |:--|--:|
    | a\\|b | 0.5 |
    <BLANKLINE>
    """
    lines = [f"**{sheet.title}**", ""]
    rule = "|:--|" + "--:|" * (len(sheet.headings) - 1)
    for row in (sheet.headings, *sheet.rows):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    lines.insert(3, rule)
    return "\n".join(lines) + "\n"


def latex(sheet: Sheet) -> str:
    """The table in LaTeX, for the booktabs package.

    >>> print(latex(Sheet("risks", ["recipe", "risk"], [["a_b", "0.5 ± 0.1"]])))
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
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (sheet.headings, *sheet.rows)]
    columns = "l" + "r" * (len(sheet.headings) - 1)
    parts = [
        rf"% {sheet.title}; needs \usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text as LaTeX sets it."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def terminal(sheet: Sheet, most: int = 12) -> Table:
    """The table's first rows for the terminal."""
    from rich.table import Table, box

    table = Table(title=sheet.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    first, *others = sheet.headings
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=name != "runs")
    for row in sheet.rows[:most]:
        table.add_row(*row)
    if len(sheet.rows) > most:
        table.add_row(f"… {len(sheet.rows) - most} more")
    return table
