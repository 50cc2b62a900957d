"""What a sweep would do: its cells, how they stand, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from truerisk.core.errors import ConfigError
from truerisk.sweeps.study_folder import unique_cells, validate_cells
from truerisk.sweeps.sweep import Sweep
from truerisk.sweeps.sweep_cell import DONE, SweepCell


class PlanRow(NamedTuple):
    """One cell of a plan.

    Attributes:
        cell: the cell.
        state: its run's status; ``to run`` where there is none, ``cannot work`` with its problem.
        group: the number of the cells it will be trained together with; None where it runs alone.
        seconds: what its run took so far; its share, where others were trained with it.
    """

    cell: SweepCell
    state: str
    group: int | None
    seconds: float


class SweepPlan(NamedTuple):
    """The rows of a sweep's first batch, which for all but tuners is the whole sweep."""

    study: str
    rows: list[PlanRow]

    @property
    def waiting(self) -> list[PlanRow]:
        """Rows of cells that will run."""
        return [row for row in self.rows if row.state not in (*DONE, "cannot work")]

    @property
    def each(self) -> float | None:
        """The mean time of a cell that is done; None where none is."""
        timed = [row.seconds for row in self.rows if row.state in DONE and row.seconds]
        return sum(timed) / len(timed) if timed else None

    def lines(self) -> Iterator[str]:
        """The plan in words: a line a cell, then the sum."""
        width = max((len(row.cell.label) for row in self.rows), default=0)
        yield from (_line(row, width) for row in self.rows)
        counts = Counter(row.state for row in self.rows)
        total = ", ".join(f"{count} {state}" for state, count in counts.items())
        yield f"{self.study}: {len(self.rows)} cells: {total}"
        if self.waiting and self.each is not None:
            total = format_duration(self.each * len(self.waiting))
            yield f"expected: {total} of work, at {self._rate()}"

    def _rate(self) -> str:
        timed = sum(row.state in DONE and row.seconds > 0 for row in self.rows)
        return f"{format_duration(self.each or 0.0)} a cell (mean of {timed} timed)"


def _line(row: PlanRow, width: int) -> str:
    reason = row.cell.problem.replace("\n", "; ")
    together = f"group {row.group}" if row.group is not None else ""
    took = format_duration(row.seconds) if row.seconds else ""
    cells = (row.cell.label.ljust(width), row.state.ljust(11), together, took, reason)
    return "  ".join(part for part in cells if part).rstrip()


def format_duration(seconds: float) -> str:
    """A length of time to read.

    >>> format_duration(0.034), format_duration(0.25), format_duration(75), format_duration(9000)
    ('0.03 s', '0.2 s', '1 min 15 s', '2 h 30 min')
    """
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds:.1g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """Look at a sweep without starting anything or writing a file.

    Raises:
        ConfigError: its points follow from the outcomes of others.
    """
    if getattr(sweep.sweeper, "adaptive", False):
        raise ConfigError("a tuner's cells follow from what earlier ones found: there is no plan")
    cells = unique_cells(sweep.study.cells(next(sweep.batches(), [])))
    states = {cell.folder: cell.outcome().status for cell in cells}
    waiting = [cell for cell in cells if states[cell.folder] not in DONE]
    found = {cell.folder: cell for cell in validate_cells(waiting)}
    cells = [found.get(cell.folder, cell) for cell in cells]
    groups = _groups(sweep.launcher(), [c for c in found.values() if not c.problem])
    rows = [_row(cell, states[cell.folder], groups) for cell in cells]
    return SweepPlan(str(sweep.study.folder), rows)


def _row(cell: SweepCell, status: str, groups: dict[Any, int]) -> PlanRow:
    state = "cannot work" if cell.problem else "to run" if status == "missing" else status
    record = cell.run.status() if status != "missing" else {}
    seconds = record.get("seconds", 0.0) / record.get("together", 1)
    return PlanRow(cell, state, groups.get(cell.folder), seconds)


def _groups(launcher: Any, cells: Sequence[SweepCell]) -> dict[Any, int]:
    """The number of each cell's group, for launchers that train cells together.

    Such a launcher has a method ``groups(cells)``, which gives lists of cells; a list of one is a
    cell by itself.
    """
    groups = launcher.groups(cells) if hasattr(launcher, "groups") else []
    numbered = enumerate((group for group in groups if len(group) > 1), 1)
    return {cell.folder: number for number, group in numbered for cell in group}
