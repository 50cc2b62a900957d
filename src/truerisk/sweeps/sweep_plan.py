"""What a sweep would do: its cells, how they stand, and how long the rest will take."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from truerisk.core.errors import ConfigError, format_count
from truerisk.core.seeds import derive_streams
from truerisk.outcome import Outcome
from truerisk.sweeps.cluster_plan import ClusterPlan
from truerisk.sweeps.run_cell import drop_label
from truerisk.sweeps.study_folder import describe_changes, unique_cells, validate_cells
from truerisk.sweeps.sweep import Sweep
from truerisk.sweeps.sweep_cell import DONE, SweepCell


class PlanRow(NamedTuple):
    """One cell of a plan.

    Attributes:
        cell: the cell.
        state: its run's status; ``to run`` where there is none, ``cannot work`` with its problem.
        group: the number of the cells it will be trained together with; None where it runs alone.
        seconds: what its run took so far; its share, where others were trained with it.
        reason: why its run has failed, or what of it is damaged; empty for all others.
    """

    cell: SweepCell
    state: str
    group: int | None
    seconds: float
    reason: str = ""

    def format(self, width: int) -> str:
        """Write the row in a line, its label padded to ``width`` characters."""
        columns = [self.cell.label.ljust(width), self.state.ljust(11)]
        if self.group is not None:
            columns.append(f"group {self.group}")
        if self.seconds:
            columns.append(format_duration(self.seconds))
        problem = self.cell.problem or self.reason
        columns.append(drop_label(problem, self.cell.label).replace("\n", "; "))
        return "  ".join(column for column in columns if column).rstrip()


class SweepPlan(NamedTuple):
    """The rows of a sweep.

    Attributes:
        study: the folder.
        rows: one for each cell.
        cluster: how long what is left takes as jobs; None where no nodes are given.
    """

    study: str
    rows: list[PlanRow]
    cluster: ClusterPlan | None = None

    def format_lines(self) -> Iterator[str]:
        """Write the plan: a line for each cell, then the sum, and the time that is expected."""
        width = max((len(row.cell.label) for row in self.rows), default=0)
        for row in self.rows:
            yield row.format(width)
        counts = Counter(row.state for row in self.rows)
        total = ", ".join(f"{count} {state}" for state, count in counts.items())
        yield f"{self.study}: {format_count(len(self.rows), 'cell')}: {total}"
        waiting = [row for row in self.rows if row.state not in (*DONE, "cannot work")]
        yield from describe_changes([row.cell for row in waiting])
        times = [row.seconds for row in self.rows if row.state in DONE and row.seconds]
        if waiting and times:
            each = sum(times) / len(times)
            rate = f"{format_duration(each)} a cell (mean of {len(times)} timed)"
            yield f"expected: {format_duration(each * len(waiting))} of work, at {rate}"
        yield from self._describe_copies()
        if self.cluster is not None:
            yield from self.cluster.format_lines()

    def _describe_copies(self) -> Iterator[str]:
        """Say of each group how many copies of its data it holds, and what one takes if known."""
        groups: dict[int, list[SweepCell]] = {}
        for row in self.rows:
            if row.group is not None:
                groups.setdefault(row.group, []).append(row.cell)
        copies = {
            number: len({identify_data(cell.config) for cell in cells})
            for number, cells in groups.items()
        }
        if len(groups) > 1 and set(copies.values()) == {1}:
            yield "the cells of each group share one copy of the data"
            return
        for number, cells in groups.items():
            held = "share one copy" if copies[number] == 1 else f"hold {copies[number]} copies"
            size = self._measure_inputs(cells[0])
            yield f"group {number}: {len(cells)} cells {held} of the data{size}"

    def _measure_inputs(self, cell: SweepCell) -> str:
        """Say what the training inputs take, from a cell with this data that is done."""
        for row in self.rows:
            if row.state in DONE and row.cell.config["data"] == cell.config["data"]:
                data = row.cell.run.metadata().get("data", {})
                if data.get("class_counts") and data.get("input_shape"):
                    count = 4 * sum(data["class_counts"]) * math.prod(data["input_shape"])
                    return f" (training inputs of {count / 2**20:.3g} MiB in single precision)"
                break
        return ""


def identify_data(config: Mapping[str, Any]) -> str:
    """Return the same for cells that train on the same samples.

    Args:
        config: of a cell.
    """
    data = [config["data"], derive_streams(config["seed"]).data, config["risk"]["train_samples"]]
    return json.dumps(data, default=str)


def format_duration(seconds: float) -> str:
    """Write a length of time for people.

    >>> format_duration(0.034), format_duration(0.25), format_duration(75)
    ('0.03 s', '0.2 s', '1 min 15 s')
    >>> format_duration(9000)
    '2 h 30 min'
    """
    whole = round(seconds)
    if seconds < 0.1:
        return f"{seconds:.1g} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plan_sweep(sweep: Sweep, nodes: int | None = None) -> SweepPlan:
    """Look at a sweep without starting anything or writing a file.

    Args:
        sweep: what is asked for.
        nodes: of a cluster, where its time there is to be told.

    Raises:
        ConfigError: its points follow from the outcomes of others; or see `ClusterPlan`.
    """
    if getattr(sweep.sweeper, "adaptive", False):
        raise ConfigError("a tuner's cells follow from what earlier ones found: there is no plan")
    points = [point for batch in sweep.propose_batches() for point in batch]
    cells = unique_cells(sweep.study.compose_cells(points))
    outcomes = {cell.folder: cell.read_outcome() for cell in cells}
    missing = [cell for cell in cells if outcomes[cell.folder].status not in DONE]
    validated = {cell.folder: cell for cell in validate_cells(missing)}
    ready = [cell for cell in validated.values() if not cell.problem]
    launcher = sweep.make_launcher()
    cluster = None
    if nodes is not None:
        cluster = ClusterPlan(cells, ready, launcher, nodes, sweep.study.folder.name)
    groups = [group for group in launcher.group_cells(ready) if len(group) > 1]
    numbers = {cell.folder: i for i, group in enumerate(groups, 1) for cell in group}
    cells = [validated.get(cell.folder, cell) for cell in cells]
    rows = [_plan_cell(cell, outcomes[cell.folder], numbers) for cell in cells]
    return SweepPlan(str(sweep.study.folder), rows, cluster)


def _plan_cell(cell: SweepCell, outcome: Outcome, groups: Mapping[Path, int]) -> PlanRow:
    record, state, reason = {}, "to run", ""
    if outcome.status not in ("missing", "refused"):
        record, state = cell.run.status(), outcome.status
    if state == "failed":  # of a traceback the last line says what went wrong
        reason = (outcome.reason.strip().splitlines() or ["no reason is known"])[-1]
    if cell.problem:
        state = "cannot work"
    # a group's members all have the time of the whole group
    seconds = record.get("seconds", 0.0) / record.get("together", 1)
    return PlanRow(cell, state, groups.get(cell.folder), seconds, reason)
