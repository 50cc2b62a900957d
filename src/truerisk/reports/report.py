"""``truerisk report``: from run folders to a page, tables, figures and files of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from truerisk.core.errors import ConfigError
from truerisk.core.files import write_atomic
from truerisk.reports import figures, tables
from truerisk.reports.charts import charts, profiles
from truerisk.reports.collect import collect
from truerisk.reports.findings import Findings, findings
from truerisk.reports.page import page
from truerisk.reports.results import write_results
from truerisk.reports.study import Study, build
from truerisk.reports.text import counted, headline


class Report(NamedTuple):
    """A report that was written."""

    folder: Path
    study: Study
    found: list[Findings]

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
) -> Report:
    """Read every run below the folders and write a report on them.

    Args:
        folders: of studies or runs.
        out: where to write; by default ``FOLDER/report`` of a single folder, else ``./report``.
        baseline: label of the recipe that all others are compared with, chosen beforehand.
        target: validation risk for the time to a target.

    Raises:
        ConfigError: there is no run below a folder, no recipe ``baseline``, or the report cannot
            be written.
    """
    study = build(collect(folders))
    found = [findings(problem, baseline, target) for problem in study.problems]
    where = Path(out) if out else Path(folders[0] if len(folders) == 1 else ".") / "report"
    try:
        where.mkdir(parents=True, exist_ok=True)
        write(where.absolute(), study, found)
    except OSError as error:
        raise ConfigError(f"report: cannot write {where}: {error.strerror or error}") from None
    return Report(where.absolute(), study, found)


def write(where: Path, study: Study, found: Sequence[Findings]) -> None:
    """Write all files of a report; the page comes last."""
    drawn = [charts(f, study) for f in found]
    across = profiles(found)
    write_results(study, where)
    for name, f, c in zip(names(found), found, drawn, strict=True):
        write_tables(where / "tables" / name, f)
        figures.save([*c.lines, *c.heats], where / "figures" / name)
    figures.save([across] if across else [], where / "figures")
    write_atomic(where / "index.html", page(where, study, found, drawn, across))


def names(found: Sequence[Findings]) -> list[str]:
    """A folder's name for each problem; none where there is one problem only."""
    if len(found) == 1:
        return [""]
    plain = [re.sub(r"[^\w.=-]", "-", f.problem.name) for f in found]
    return [n if plain.count(n) == 1 else f"{n}-{i}" for i, n in enumerate(plain, 1)]


def write_tables(folder: Path, found: Findings) -> None:
    """A problem's tables in Markdown and LaTeX."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in tables.sheets(found).items():
        write_atomic(folder / f"{name}.md", tables.markdown(sheet))
        write_atomic(folder / f"{name}.tex", tables.latex(sheet))


def tell(report: Report) -> None:
    """Print how the runs ended, the tables' tops, what may be said, and where the page is."""
    from rich.console import Console

    console = Console(highlight=False)
    print(counted(report.study))
    for found in report.found:
        console.print(tables.terminal(tables.short_sheet(found)))
        console.print("\n".join(headline(found)), markup=False)
    if not (report.folder / "results.parquet").exists():
        print("no results.parquet, only results.csv: pip install 'truerisk[parquet]'")
    print(f"\npage  {report.page}")
