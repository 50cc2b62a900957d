"""Cells that differ only in numbers, trained as one stacked model."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from truerisk.core.atomic_files import NO_ROOM, describe_file_error
from truerisk.core.errors import ConfigError, describe_error
from truerisk.outcome import Outcome
from truerisk.sweeps.launcher.launcher import (
    CellWork,
    Launcher,
    SerialLauncher,
    tell_reasons,
)
from truerisk.sweeps.launcher.pool import Pool
from truerisk.sweeps.sweep_cell import DONE, SweepCell

if TYPE_CHECKING:
    from truerisk.sweeps.launcher.group_processes import ClaimedGroup


class Vectorized(Launcher):
    """``hydra/launcher=vectorized``: groups by `torch.vmap`, and the rest one after another.

    Args:
        size: cells trained at once at most, or ``auto``.
        processes: processes that share the cells of a group, and those that run by themselves.

    Raises:
        ConfigError: one of them is no whole number.
    """

    def __init__(self, size: int | str = "auto", processes: int = 1) -> None:
        self.size = None if size == "auto" else _check_count("hydra.launcher.size", size)
        self.processes = _check_count("hydra.launcher.processes", processes)

    def group_cells(self, cells: Sequence[SweepCell]) -> list[list[SweepCell]]:
        """Say which cells are trained together: those that differ only in numbers that stack."""
        from truerisk.engine.stacked.grouping import group_configs

        groups_of_rows = group_configs([cell.config for cell in cells])
        return [[cells[row] for row in group.rows] for group in groups_of_rows]

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Train the groups, then the other cells by themselves."""
        from truerisk.engine.stacked.grouping import LONELY, group_configs
        from truerisk.sweeps.launcher.group_processes import train_groups

        alone: dict[Path, str] = {}
        together: list[list[SweepCell]] = []
        for rows, why in group_configs([work.cell.config for work in works]):
            cells = [works[row].cell for row in rows]
            # the last of a stack goes on as one, to the same bits
            if why and not (why == LONELY and cells[0].run.is_stacked()):
                alone[cells[0].folder] = why
            else:
                together.append(cells)
        for group in train_groups(together, self.size, self.processes):
            yield from _end_group(group, alone)
        rest = [work for work in works if work.cell.folder in alone]
        if len(works) > 1:
            tell_reasons(
                {work.cell.label: alone[work.cell.folder] for work in rest},
                "{cell} by itself, as {why}",
                "{cell} and {more} more by themselves, as {why}",
            )
        launcher: Launcher = SerialLauncher()
        if self.processes > 1 and len(rest) > 1:
            launcher = Pool(self.processes)
        outcomes = launcher.run_works(rest)
        yield from zip([work.cell for work in rest], outcomes, strict=True)


def _end_group(group: ClaimedGroup, alone: dict[Path, str]) -> Iterator[tuple[SweepCell, Outcome]]:
    """Tell how the cells of a group ended; where it broke, they go to ``alone`` with the reason."""
    from truerisk.engine.stacked.grouping import Unstackable

    named = {cell.digits: cell.folder for cell in group.cells}  # as this command has
    refused, outcomes, error = group.refused, group.outcomes, group.error
    if error is not None:
        unfinished = [cell for cell in group.waiting if cell.read_outcome().status not in DONE]
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            # by itself a cell would find no more room
            why = f"{describe_file_error(error, group.cells[0].folder.parent)}: make room, then"
            refused = _fail_cells(unfinished, f"{why} give the sweep again")
        else:
            # whatever it is, it may be of the stacking: each cell has its turn by itself
            why = f"training it with others failed: {_describe_failure(error)}"
            if isinstance(error, Unstackable):
                why = str(error)
            alone |= {named[cell.digits]: why for cell in unfinished}
            _put_aside(unfinished)
    for cell in group.waiting:
        end = replace(cell.read_outcome(), new=True)
        if cell.folder in refused:
            end = Outcome(math.nan, "refused", refused[cell.folder])
        outcomes[named[cell.digits]] = replace(end, folder=cell.folder)
    yield from ((cell, outcomes[cell.folder]) for cell in group.cells)


def _put_aside(cells: Sequence[SweepCell]) -> None:
    """Let cells that have no checkpoint to go on from begin anew, each by itself.

    What they had measured is kept, and told of once.
    """
    from truerisk.fit import put_aside

    anew = [cell for cell in cells if cell.run.begun and not cell.run.last.exists()]
    kept = {cell.label: put_aside(cell.run) for cell in anew}
    for cell in anew:  # without it a run has not begun
        cell.run.config.unlink()
    tell_reasons(
        {label: why for label, why in kept.items() if why},
        "{cell} has no checkpoint: the run starts anew{why}",
        "{cell} and {more} more have no checkpoint: each run starts anew{why}",
    )


def _fail_cells(cells: Sequence[SweepCell], reason: str) -> dict[Path, str]:
    """Write down that cells failed, as far as there is room; return the reason by folder."""
    for cell in cells:
        if cell.run.begun:
            with suppress(OSError):
                cell.run.set_status("failed", reason)
    return {cell.folder: reason for cell in cells}


def _describe_failure(error: BaseException) -> str:
    """Say what an error says, and where: for a limit of vmap, the line of the model that met it."""
    import torch

    said = describe_error(error).partition(". ")[0]
    # the innermost line that is neither torch's nor of what trains: that of the model, where a
    # part of the stack is what vmap has no rule for
    package = Path(__file__).parents[2]
    passing = (Path(torch.__file__).parent, package / "sweeps", package / "engine")
    files = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    files = [(name, line) for name, line in files if not name.startswith(tuple(map(str, passing)))]
    return f"{said} ({Path(files[-1][0]).name}:{files[-1][1]})" if files else said


def _check_count(key: str, value: int | str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} is {value!r}: give a whole number of at least 1")
    return value
