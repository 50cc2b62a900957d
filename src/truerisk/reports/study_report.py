"""``truerisk report``: from run folders to a page, tables, figures and files of numbers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from truerisk.core.atomic_files import write_atomic
from truerisk.core.errors import ConfigError
from truerisk.reports.charts import chart_profiles, draw_problem
from truerisk.reports.figures import save_charts
from truerisk.reports.findings import (
    ProblemFindings,
    analyze_problem,
    describe_study,
    list_failures,
    summarize_findings,
)
from truerisk.reports.learning_problem import StudyResults, build_study
from truerisk.reports.page import build_page, round_numbers
from truerisk.reports.run_records import collect_runs
from truerisk.reports.tables import (
    build_tables,
    render_latex,
    render_markdown,
    render_terminal,
    tabulate_main_metrics,
    write_results,
)


class StudyReport(NamedTuple):
    """A report that was written."""

    folder: Path
    study: StudyResults
    findings: list[ProblemFindings]

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    baseline: str | None = None,
    target: float | None = None,
) -> StudyReport:
    """Read every run below the folders and write a report on them.

    Args:
        folders: of studies or runs.
        out: where to write; by default ``FOLDER/report`` of a single folder, else ``./report``.
        baseline: label of the recipe that all others are compared with, chosen beforehand.
        target: validation risk for the time to a target.

    Returns:
        The report.

    Raises:
        ConfigError: there is no run below a folder, no recipe ``baseline``, or the report cannot
            be written.
    """
    study = build_study(collect_runs(folders))
    findings = [analyze_problem(problem, baseline, target) for problem in study.problems]
    if out:
        folder = Path(out)
    elif len(folders) == 1:
        folder = Path(folders[0], "report")
    else:
        folder = Path("report")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder.absolute(), study, findings)
    except OSError as error:
        raise ConfigError(f"report: cannot write {folder}: {error.strerror or error}") from None
    return StudyReport(folder.absolute(), study, findings)


def write_files(folder: Path, study: StudyResults, findings: Sequence[ProblemFindings]) -> None:
    """Write all files of a report.

    Args:
        folder: where to; it must exist.
        study: all runs.
        findings: of each problem.
    """
    charts = [draw_problem(f, study) for f in findings]
    profiles = chart_profiles(findings)
    write_results(study, folder)
    for name, found, (lines, maps) in zip(name_folders(findings), findings, charts, strict=True):
        write_tables(folder / "tables" / name, found)
        save_charts([*lines, *maps], folder / "figures" / name)
    save_charts([profiles] if profiles else [], folder / "figures")
    # last, so that a page never links to files that are not there yet
    write_atomic(folder / "index.html", build_page(folder, study, findings, charts, profiles))


def name_folders(findings: Sequence[ProblemFindings]) -> list[str]:
    """Name a folder for each problem; of a single problem the files lie in the folder above."""
    if len(findings) == 1:
        return [""]
    # names that differ in replaced letters only become equal, and are numbered
    names = [re.sub(r"[^\w.=-]", "-", f.problem.name) for f in findings]
    return [n if names.count(n) == 1 else f"{n}-{i}" for i, n in enumerate(names, 1)]


def write_tables(folder: Path, findings: ProblemFindings) -> None:
    """Write a problem's tables in Markdown and LaTeX, and its scaling laws in JSON.

    Args:
        folder: where to; it is made where missing.
        findings: of the problem.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stem, table in build_tables(findings).items():
        write_atomic(folder / f"{stem}.md", render_markdown(table))
        write_atomic(folder / f"{stem}.tex", render_latex(table))
    if laws := findings.scaling.laws:
        numbers = round_numbers([law.tell_numbers() for law in laws])
        write_atomic(folder / "scaling-laws.json", json.dumps(numbers, indent=1))


def print_summary(report: StudyReport, refusals: bool = True) -> None:
    """Print how the runs ended, the tops of the tables, the conclusions, and where the page is.

    Args:
        report: that was written.
        refusals: whether to name the cells that were refused; a sweep has just told them.
    """
    from rich.console import Console

    console = Console(highlight=False)
    study = report.study
    for line in study.list_unreadable():
        print(f"error: {line}", file=sys.stderr)
    if not refusals:
        study = replace(study, refused={})
    for line in list_failures(study):
        print(line, file=sys.stderr)
    print(describe_study(report.study))
    for findings in report.findings:
        console.print(render_terminal(tabulate_main_metrics(findings), width=console.width))
        # labels such as [l2,dropout] are no markup of rich's
        console.print("\n".join(summarize_findings(findings)), markup=False)
    if not (report.folder / "results.parquet").exists():
        print("no results.parquet, only results.csv: pip install 'truerisk[parquet]'")
    print(f"\npage  {report.page}")
