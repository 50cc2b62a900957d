"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from truerisk.show.number import format_significant, format_with_stderr

if TYPE_CHECKING:
    from rich.table import Table

    from truerisk.risk.measured import Measured

ROWS = {
    "train": "train",
    "val": "validation",
    "gap": "gap",
    "test": "test",
    "true": "true",
    "bayes": "Bayes",
}
FUNCTION_ROWS = {"risk/val": "value", "distance": "distance to the nearest known minimum"}


def percent(error: Measured | None, risk: Measured | None = None) -> str:
    """A 0-1 error in per cent, with its standard error.

    Where a sample is all right or all wrong there is none to be told, which does not make the error
    exact: that it is only where the ``risk`` on the same samples is.

    >>> from truerisk.risk.measured import Measured
    >>> percent(Measured(0.0, 0.0), Measured(0.1, 0.03)), percent(Measured(0.0, 0.0))
    ('0.000', '0.000 exact')
    """
    if error is None:
        return ""
    alike = error.stderr == 0 and risk is not None and risk.stderr != 0
    stderr = None if error.stderr is None or alike else 100 * error.stderr
    return format_with_stderr(100 * error.value, stderr)


def risk_table(summary: Mapping[str, Measured], title: str | None = None) -> Table:
    """Risks and their standard errors, a row each: train, validation, gap, test, true, Bayes.

    Args:
        summary: measured numbers by name (``risk/val``, ``error/val``, …); a name that is not there
            leaves its cell or row out. Other names are passed over.
        title: a line above the table.
    """
    rows = [key for key in ROWS if f"risk/{key}" in summary or f"error/{key}" in summary]
    errors = any(f"error/{key}" in summary for key in rows)
    table = _empty(title, ["", "risk ± s.e.", *(["0-1 error, %"] if errors else []), "epoch"])
    for key in rows:
        risk, error = summary.get(f"risk/{key}"), summary.get(f"error/{key}")
        epoch = next(m.epoch for m in (risk, error) if m is not None)
        cells = [ROWS[key], "" if risk is None else format_with_stderr(risk.value, risk.stderr)]
        cells += [percent(error, risk)] if errors else []
        table.add_row(*cells, "" if epoch is None else str(epoch))
    return table


def function_table(summary: Mapping[str, Measured], title: str | None = None) -> Table:
    """A test function's value, and its distance from a minimum where one is known."""
    table = _empty(title, ["", "", "epoch"])
    for name, row in FUNCTION_ROWS.items():
        if name in summary:
            value, _, epoch = summary[name]
            table.add_row(row, format_significant(value), "" if epoch is None else str(epoch))
    return table


def _empty(title: str | None, headings: Sequence[str]) -> Table:
    """A table without rows, whose first two columns begin at the left."""
    from rich.table import Table, box

    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    # rich wraps a title at the table's width
    table.min_width = min(58, len(title or "") + 1)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    return table
