"""What can be known to be wrong with cells before any of them starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from truerisk.errors import UserError
from truerisk.sweeps.cell import Cell


def examined(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, each with its ``problem``: against signatures, and combinations ruled out."""
    for cell in cells:
        problem = cell.problem or _problem(cell)
        yield replace(cell, problem=problem) if problem else cell


def _problem(cell: Cell) -> str:
    from truerisk.assemble import refuse
    from truerisk.check import check

    try:
        check(cell.cfg)
        refuse(cell.cfg)
    except UserError as error:
        return str(error)
    return ""
