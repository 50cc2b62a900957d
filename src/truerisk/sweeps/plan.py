"""What a sweep would do: its cells, how they stand, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from truerisk.core.errors import ConfigError
from truerisk.sweeps.cell import DONE, Cell
from truerisk.sweeps.examine import examined
from truerisk.sweeps.study import distinct
from truerisk.sweeps.sweep import Sweep


class Row(NamedTuple):
    """One cell of a plan.

    Attributes:
        cell: the cell.
        state: its run's status; ``to run`` where there is none, ``cannot work`` with its problem.
        group: the number of the cells it will be trained together with; None where it runs alone.
        seconds: what its run took so far; its share, where others were trained with it.
    """

    cell: Cell
    state: str
    group: int | None
    seconds: float


class Plan(NamedTuple):
    """The rows of a sweep's first batch, which for all but tuners is the whole sweep."""

    study: str
    rows: list[Row]

    @property
    def waiting(self) -> list[Row]:
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
            yield f"expected: {spell(self.each * len(self.waiting))} of work, at {self._rate()}"

    def _rate(self) -> str:
        timed = sum(row.state in DONE and row.seconds > 0 for row in self.rows)
        return f"{spell(self.each or 0.0)} a cell (mean of {timed} timed)"


def _line(row: Row, width: int) -> str:
    reason = row.cell.problem.replace("\n", "; ")
    together = f"group {row.group}" if row.group is not None else ""
    took = spell(row.seconds) if row.seconds else ""
    cells = (row.cell.label.ljust(width), row.state.ljust(11), together, took, reason)
    return "  ".join(part for part in cells if part).rstrip()


def spell(seconds: float) -> str:
    """A length of time to read.

    >>> spell(0.034), spell(0.25), spell(75), spell(9000)
    ('0.03 s', '0.2 s', '1 min 15 s', '2 h 30 min')
    """
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds:.1g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def planned(sweep: Sweep) -> Plan:
    """Look at a sweep without starting anything or writing a file.

    Raises:
        ConfigError: its points follow from the outcomes of others.
    """
    if getattr(sweep.sweeper, "adaptive", False):
        raise ConfigError("a tuner's cells follow from what earlier ones found: there is no plan")
    cells = distinct(sweep.study.cells(next(sweep.batches(), [])))
    states = {cell.folder: cell.outcome().status for cell in cells}
    waiting = [cell for cell in cells if states[cell.folder] not in DONE]
    found = {cell.folder: cell for cell in examined(waiting)}
    cells = [found.get(cell.folder, cell) for cell in cells]
    groups = _groups(sweep.launcher(), [c for c in found.values() if not c.problem])
    rows = [_row(cell, states[cell.folder], groups) for cell in cells]
    return Plan(str(sweep.study.folder), rows)


def _row(cell: Cell, status: str, groups: dict[Any, int]) -> Row:
    state = "cannot work" if cell.problem else "to run" if status == "missing" else status
    record = cell.run.status() if status != "missing" else {}
    seconds = record.get("seconds", 0.0) / record.get("together", 1)
    return Row(cell, state, groups.get(cell.folder), seconds)


def _groups(launcher: Any, cells: Sequence[Cell]) -> dict[Any, int]:
    """The number of each cell's group, for launchers that train cells together.

    Such a launcher has a method ``groups(cells)``, which gives lists of cells; a list of one is a
    cell by itself.
    """
    groups = launcher.groups(cells) if hasattr(launcher, "groups") else []
    numbered = enumerate((group for group in groups if len(group) > 1), 1)
    return {cell.folder: number for number, group in numbered for cell in group}
