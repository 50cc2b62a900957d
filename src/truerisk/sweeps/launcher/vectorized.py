"""Cells that differ only in numbers, trained as one stacked model."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from truerisk.core.errors import ConfigError, Interrupted
from truerisk.outcome import INTERRUPTED, Outcome
from truerisk.run import RunFolder
from truerisk.sweeps.launcher.launcher import HydraJobs, SerialLauncher
from truerisk.sweeps.launcher.pool import Pool
from truerisk.sweeps.locks import lock_cells
from truerisk.sweeps.run_cell import ELSEWHERE
from truerisk.sweeps.sweep_cell import DONE, SweepCell, read_outcome


class Vectorized:
    """``hydra/launcher=vectorized``: groups by `torch.vmap`, and the rest one after another.

    Args:
        size: cells trained at once at most, or ``auto``.
        processes: processes that share the cells of a group, and those that run by themselves.

    Raises:
        ConfigError: one of them is no whole number.
    """

    def __init__(self, size: int | str = "auto", processes: int = 1) -> None:
        self.size = None if size == "auto" else _whole("hydra.launcher.size", size)
        self.processes = _whole("hydra.launcher.processes", processes)

    def groups(self, cells: Sequence[SweepCell]) -> list[list[SweepCell]]:
        """The cells that will be trained together; a cell that runs by itself is a list of one."""
        from truerisk.engine.stacked.grouping import groups

        made = groups([cell.config for cell in cells])
        return [[cells[row] for row in group.rows] for group in made]

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Train the groups, then the other cells in turn; how they ended, in their order."""
        from truerisk.engine.stacked.grouping import groups

        made = groups([cell.config for cell in cells])
        found: dict[int, Outcome] = {}
        alone = {group.rows[0]: group.why for group in made if group.why}
        together = [group.rows for group in made if not group.why]
        for i, own in enumerate(together, 1):
            place = f"group {i} of {len(together)}" if len(together) > 1 else ""
            found |= self._group({row: cells[row] for row in own}, alone, place)
        rows = sorted(alone)
        if len(cells) > 1:
            _tell({cells[row].label: alone[row] for row in rows})
        ended = self._singly([cells[row] for row in rows], jobs)
        found |= dict(zip(rows, ended, strict=True))
        return [found[row] for row in range(len(cells))]

    def _singly(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Ordinary runs, in as many processes."""
        launcher = (
            Pool(self.processes) if self.processes > 1 and len(cells) > 1 else SerialLauncher()
        )
        return launcher.launch(cells, jobs)

    def _group(
        self, cells: dict[int, SweepCell], alone: dict[int, str], place: str
    ) -> dict[int, Outcome]:
        """Train a group; what breaks it goes to ``alone``, to be run cell by cell."""
        from truerisk.engine.stacked.parallel import trained

        found = dict.fromkeys(cells, ELSEWHERE)
        with lock_cells([cell.folder for cell in cells.values()]) as mine:
            own = {row: cell for row, cell in cells.items() if cell.folder in mine}
            found |= {row: read_outcome(cell.run) for row, cell in own.items()}
            left = {row: cell for row, cell in own.items() if found[row].status not in DONE}
            waiting = list(left.values())
            try:
                refused = trained(waiting, self.size, self.processes, place) if waiting else {}
            except Interrupted as stop:
                raise SystemExit(INTERRUPTED.get(str(stop), 130)) from None
            except Exception as error:
                refused, why = {}, _first_sentence(error)
                unfinished = [row for row in left if read_outcome(left[row].run).status not in DONE]
                alone |= {row: f"training it with others failed: {why}" for row in unfinished}
            _refuse({c.label: refused[c.folder] for c in left.values() if c.folder in refused})
            return found | {row: _outcome(cell.folder, refused) for row, cell in left.items()}


def _first_sentence(error: Exception) -> str:
    """What an error says, and where: for a limit of vmap, the line of the model that met it."""
    import torch

    said = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
    passed_on = str(Path(torch.__file__).parent), str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(passed_on)]
    return f"{said} ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else said


def _tell(alone: dict[str, str]) -> None:
    """Why some cells run by themselves, in one line for each reason."""
    for first, others, why in _by_reason(alone):
        more = f" and {others} more by themselves" if others else " by itself"
        print(f"{first}{more}, as {why}", file=sys.stderr)


def _refuse(refused: dict[str, str]) -> None:
    """Why some cells could not begin, in one line for each reason."""
    for first, others, why in _by_reason(refused):
        more = f" and {others} more" if others else ""
        print(f"error: {first}{more}: {why}", file=sys.stderr)


def _by_reason(reasons: dict[str, str]) -> Iterator[tuple[str, int, str]]:
    """The first cell of each reason, how many more have it, and the reason."""
    for why in dict.fromkeys(reasons.values()):
        first, *others = (label for label, own in reasons.items() if own == why)
        yield first, len(others), why


def _outcome(folder: Path, refused: dict[Path, str]) -> Outcome:
    if folder in refused:
        return Outcome(math.nan, "refused", refused[folder])
    return replace(read_outcome(RunFolder(folder)), new=True)


def _whole(key: str, value: int | str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} is {value!r}: give a whole number of at least 1")
    return value
