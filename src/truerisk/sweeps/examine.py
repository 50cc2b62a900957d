"""What can be known to be wrong with cells before any of them starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from truerisk.core.errors import UserError
from truerisk.sweeps.cell import Cell


def examined(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, each with its ``problem``: against signatures, and combinations ruled out.

    Of cells that differ in nothing but their seeds, one is looked at.
    """
    known: dict[str, str] = {}
    for cell in cells:
        if not cell.problem:
            kind = _kind(cell.config)
            if kind not in known:
                known[kind] = _problem(cell)
            cell = replace(cell, problem=known[kind]) if known[kind] else cell
        yield cell


def _kind(config: Mapping[str, Any]) -> str:
    """A configuration without the seeds that are in order."""
    seeds = {key: None if _is_seed(value) else value for key, value in config["seed"].items()}
    return json.dumps({**config, "seed": seeds}, sort_keys=True, default=str)


def _is_seed(value: Any) -> bool:
    return type(value) is int and value >= 0


def _problem(cell: Cell) -> str:
    from truerisk.assemble import refuse
    from truerisk.config.check import check

    try:
        check(cell.config)
        refuse(cell.cfg)
    except UserError as error:
        return str(error)
    return ""
