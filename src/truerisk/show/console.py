"""What is printed when a run has ended: a table of what was measured, and where its files are."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from truerisk.risk.intervals import bound_proportion, wilson_bounds
from truerisk.risk.measured import Monitor, read_monitor
from truerisk.run import rank
from truerisk.show.style import format_bounds, format_significant, format_with_stderr
from truerisk.task import get_task

if TYPE_CHECKING:
    from rich.table import Table

    from truerisk.result import RunResult
    from truerisk.risk.measured import Measured

ROWS = {
    "train": "train",
    "val": "validation",
    "gap": "gap",
    "test": "test",
    "true": "true",
    "bayes": "Bayes",
}


OPTIMISM = "validation, gap: optimistic, as their samples chose the epoch"
"""Said where the validation risk is that of the epoch with the lowest one."""
INTERVAL = "[ ]: 95 % interval (Wilson's)"


def format_percent(error: Measured | None, risk: Measured | None = None) -> str:
    """Write a 0-1 error in per cent, with Wilson's 95 % interval.

    Of a run of an earlier version, which does not tell the number of samples, it is the standard
    error. Where a sample is all right or all wrong there is none to be told, which does not make
    the error exact: that it is only where the ``risk`` on the same samples is.

    Args:
        error: a share; nothing is written for None.
        risk: what was measured on the same samples.

    >>> from truerisk.risk.measured import Measured
    >>> format_percent(Measured(0.0, 0.0), Measured(0.1, 0.03)), format_percent(Measured(0.0, 0.0))
    ('0.000', '0.000 exact')
    """
    if error is None:
        return ""
    low, high = wilson_bounds(error)
    if error.size is not None and math.isfinite(low):
        return format_bounds(100 * error.value, 100 * low, 100 * high)
    # all samples right or all wrong have no spread, which says nothing of other samples
    all_alike = error.stderr == 0 and risk is not None and risk.stderr != 0
    if error.stderr is None or all_alike:
        return format_with_stderr(100 * error.value, None)
    return format_with_stderr(100 * error.value, 100 * error.stderr)


def format_risk(risk: Measured | None) -> str:
    """Write a risk with its standard error; nothing for None."""
    if risk is None:
        return ""
    return format_with_stderr(risk.value, risk.stderr)


def format_share(share: Measured | None) -> str:
    """Write the share of a variance that is explained and its standard error; nothing for None."""
    if share is None:
        return ""
    # of samples that are all there are it is exact, as the risk beside it says
    if not share.stderr or not math.isfinite(share.value + share.stderr):
        return f"{share.value:.3f}"
    return format_with_stderr(share.value, share.stderr)


def format_epoch(epoch: int | None) -> str:
    """Write an epoch's number; nothing for None."""
    if epoch is None:
        return ""
    return str(epoch)


def risk_table(
    summary: Mapping[str, Measured], title: str | None = None, error_title: str = "0-1 error"
) -> Table:
    """Make a table of risks, a row each: train, validation, gap, test, true, Bayes, best constant.

    The best constant is the one that training targets alone suggest (their mean, their shares of
    classes), measured on the samples that no training has seen.

    Args:
        summary: measured numbers by name (``risk/val``, ``error/val``, …); a name that is not there
            leaves its cell or row out. Other names are passed over.
        title: a line above the table.
        error_title: what the task calls its errors.
    """
    keys = [key for key in ROWS if f"risk/{key}" in summary or f"error/{key}" in summary]
    has_errors = any(f"error/{key}" in summary for key in keys)
    has_shares = any(f"r2/{key}" in summary for key in keys)
    optional = {f"{error_title}, %": has_errors, "R² ± s.e.": has_shares}
    shown = [heading for heading, holds in optional.items() if holds]
    table = _empty_table(title, ["", "risk ± s.e.", *shown, "epoch"])
    for key in keys:
        risk, error = summary.get(f"risk/{key}"), summary.get(f"error/{key}")
        epoch = next(measured.epoch for measured in (risk, error) if measured is not None)
        cells = [ROWS[key], format_risk(risk)]
        if has_errors:
            noiseless = risk is not None and risk.value == risk.stderr == 0
            if key == "bayes" and noiseless and error is not None:
                error = error._replace(size=None)  # P has no noise: no sample could be wrong
            cells.append(format_percent(error, risk))
        if has_shares:
            cells.append(format_share(summary.get(f"r2/{key}")))
        table.add_row(*cells, format_epoch(epoch))
    unseen = find_constant_split(summary)
    if unseen is not None:
        risk, error = (summary.get(f"constant/{kind}/{unseen}") for kind in ("risk", "error"))
        cells = ["best constant", format_risk(risk)]
        if has_errors:
            cells.append(format_percent(error, risk))
        table.add_row(*cells, *[""] * (len(table.columns) - len(cells)))
    return table


def find_constant_split(summary: Mapping[str, Measured]) -> str | None:
    """Find the split on which the best constant is shown; None where it was not measured."""
    return next((s for s in ("test", "val") if f"constant/risk/{s}" in summary), None)


def describe_constant(summary: Mapping[str, Measured]) -> str | None:
    """Say that the best constant has the lower risk on unseen data; None where it has not.

    Args:
        summary: measured numbers by name.
    """
    split = find_constant_split(summary)
    if split is None or f"risk/{split}" not in summary:
        return None
    risk, constant = summary[f"risk/{split}"], summary[f"constant/risk/{split}"]
    if math.isfinite(risk.value) and risk.value < constant.value:
        return None
    return (
        f"no better than the best constant, which looks at no input: {ROWS[split]} risk "
        f"{format_significant(risk.value)}, its own {format_significant(constant.value)}"
    )


def function_table(summary: Mapping[str, Measured], title: str | None = None) -> Table:
    """Make a table of a test function's value, and its distance from a minimum if one is known.

    Args:
        summary: measured numbers by name, of which ``risk/val`` and ``distance`` are shown.
        title: a line above the table.
    """
    table = _empty_table(title, ["", "", "epoch"])
    for name, row in get_task("function").table_rows.items():
        if name in summary:
            measured = summary[name]
            table.add_row(row, format_significant(measured.value), format_epoch(measured.epoch))
    return table


def _empty_table(title: str | None, headings: Sequence[str]) -> Table:
    """Make a table without rows, whose first two columns begin at the left."""
    from rich.table import Table, box

    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    # rich wraps a title at the table's width
    table.min_width = min(58, len(title or "") + 1)
    for heading in headings[:2]:
        table.add_column(heading, justify="left", no_wrap=True)
    for heading in headings[2:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def list_footnotes(summary: Mapping[str, Measured]) -> list[str]:
    """List what a reader of the table of risks has to know of its numbers.

    Args:
        summary: measured numbers by name.
    """
    notes = []
    if any(name.startswith("error/") and m.size is not None for name, m in summary.items()):
        notes.append(INTERVAL)
    gap = summary.get("risk/gap")
    # measured again on other samples, or before the first step, nothing was chosen by them
    if gap is not None and gap.epoch:
        notes.append(OPTIMISM)
    return notes


def metric_table(summary: Mapping[str, Measured]) -> Table | None:
    """Make a table of metrics, a row each with its standard errors; None where there are none.

    Args:
        summary: measured numbers by name, of which those below ``metric/`` are shown.
    """
    rows: dict[str, dict[str, Measured]] = {}
    for key, measured in summary.items():
        head, _, rest = key.partition("/")
        if head == "metric":
            name, _, split = rest.rpartition("/")
            rows.setdefault(name, {})[split] = measured
    splits = [key for key in ROWS if any(key in row for row in rows.values())]
    if not rows:
        return None
    headings = ["", *(ROWS[split] for split in splits)]
    unseen = find_constant_split(summary)
    if unseen is not None:
        headings.append("best constant")
    table = _empty_table("metrics ± s.e. [95 % interval]", headings)
    # rather than a number, a name is what a narrow window breaks
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for name, row in rows.items():
        cells = [_format_metric(f"metric/{name}/{split}", row.get(split)) for split in splits]
        if unseen is not None:
            constant = summary.get(f"constant/metric/{name}/{unseen}")
            cells.append("–" if constant is None else format_significant(constant.value))
        table.add_row(name.replace("/", " "), *cells)
    return table


def _format_metric(name: str, measured: Measured | None) -> str:
    """Write a metric with Wilson's interval where it is a share, else with its standard error."""
    if measured is None:
        return ""
    bounds = bound_proportion(name, measured)
    if bounds is not None:
        return format_bounds(measured.value, *bounds)
    # as of an area of 1 on few samples: not exact, and no error is known
    if measured.size is not None and measured.stderr == 0:
        return format_with_stderr(measured.value, None)
    return format_risk(measured)


def print_table(summary: Mapping[str, Measured], title: str, task: str) -> None:
    """Print the risks with their standard errors, or how far down a function the run came.

    Args:
        summary: measured numbers by name.
        title: a line above the table.
        task: the run's.
    """
    from rich.console import Console

    learned = get_task(task)
    if learned.has_samples:
        table = risk_table(summary, title, learned.error_title or "error")
    else:
        table = function_table(summary, title)
    console = Console(highlight=False)
    console.print(table)
    for note in list_footnotes(summary) if learned.has_samples else ():
        print(note)
    constant = describe_constant(summary)
    if constant is not None:
        print(constant)
    metrics = metric_table(summary)
    if metrics is not None:
        console.print(metrics)


def describe_weights(monitor: Monitor, task: str) -> str:
    """Say which weights the numbers of a finished run are of.

    Args:
        monitor: what the run followed.
        task: the run's.
    """
    if monitor == Monitor():
        return get_task(task).summary_title
    which = "highest" if monitor.higher_is_better else "lowest"
    return f"risk at the weights with the {which} {monitor.name}"


_TOLD: set[str] = set()


def print_notes(notes: Iterable[str], once: bool = False, warn: bool = False) -> None:
    """Print what there is to know of a run before its first step, from the first process.

    Args:
        notes: a line each.
        once: whether a line that this process has printed before, with these or other numbers, is
            left out, as the cells of a sweep read the same data, or other draws of it.
        warn: whether they go to stderr.
    """
    if rank() > 0:
        return
    for note in notes:
        words = re.sub(r"[\d.]+", "", note)
        if not (once and words in _TOLD):
            print(note, file=sys.stderr if warn else sys.stdout, flush=True)
        _TOLD.add(words)


def print_report(run: RunResult) -> None:
    """Print how a run ended, its table, and where its files and figure lie."""
    # of the processes of a distributed run, one tells of it
    if rank() > 0:
        return
    if run.status == "interrupted":
        folder = shlex.quote(str(run.folder))
        print(f"\nstopped by {run.reason}; go on with: truerisk train resume={folder}")
        return
    if run.status == "diverged":
        told = "the numbers are those of the best epoch before it"
        if not run.summary:
            told = "no epoch before it was measured, so there are no numbers"
        print(f"\ndiverged at {run.reason}; {told}")
    # a run that ends for a reason of its own has finished too
    if run.status == "finished" and run.reason:
        print(f"\nstopped early: {run.reason}")
    best = run.summary.get("risk/val")
    if best is not None and best.epoch == 0 and get_task(run.task).has_samples:
        print("\nno epoch improved on the initial weights: the numbers are theirs")
    if run.summary:
        title = describe_weights(read_monitor(run.run.metadata()), run.task)
        print_table(run.summary, title, run.task)
    print(f"run     {run.folder}")
    figure = run.figure_file
    if figure.exists():
        print(f"figure  {figure}")
    others = [f.name for f in sorted(run.run.figures.glob("*.png")) if f != figure]
    if others:
        print(f"        and beside it {', '.join(others)}")
