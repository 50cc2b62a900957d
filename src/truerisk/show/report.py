"""What is printed when a run has ended."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from truerisk.run import rank
from truerisk.show.table import function_table, risk_table

if TYPE_CHECKING:
    from truerisk.result import RunResult
    from truerisk.risk.measured import Measured

BEST = {
    "risk": "risk at the weights with the lowest validation risk",
    "function": "the lowest point of the path",
}


def print_table(summary: Mapping[str, Measured], title: str, task: str) -> None:
    """The risks with their standard errors, or how far down a test function the run came."""
    from rich.console import Console

    table = function_table if task == "function" else risk_table
    Console(highlight=False).print(table(summary, title))


def print_report(run: RunResult) -> None:
    """How the run ended, its table, and where its files and figure lie; one process tells it."""
    if rank() > 0:
        return
    if run.status == "interrupted":
        folder = shlex.quote(str(run.folder))
        print(f"\nstopped by {run.reason}; go on with: truerisk train resume={folder}")
        return
    if run.status == "diverged":
        print(f"\ndiverged at {run.reason}; the numbers are those of the best epoch before it")
    if run.status == "finished" and run.reason:
        print(f"\nstopped early: {run.reason}")
    if run.summary:
        print_table(run.summary, BEST.get(run.task, BEST["risk"]), run.task)
    print(f"run     {run.folder}")
    if run.figure.exists():
        print(f"figure  {run.figure}")
    others = [f.name for f in sorted(run.run.figures.glob("*.png")) if f != run.figure]
    if others:
        print(f"        and beside it {', '.join(others)}")
