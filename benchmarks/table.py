"""The table of results."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median
from typing import Literal

from benchmarks.row import Row

NOTE = """\
Medians over interleaved rounds. Template's style: lightning-hydra-template's, with its automatic
optimization, self.log and torchmetrics in every step, and samples collated one by one."""


def header(quick: bool) -> str:
    """What the numbers depend on."""
    import torch

    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{threads} thread of {os.cpu_count()} cores, load {load:.1f}{', quick' if quick else ''}"
    )


def number(value: float) -> str:
    """Three digits, without an exponent.

    >>> [number(v) for v in (0.0514, 1.5, 812.3, 1234.0)]
    ['0.0514', '1.50', '812', '1234']
    """
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def cells(row: Row) -> list[str]:
    """A row's cells after the first."""
    pairs, ratios = row.pairs, sorted(row.pairs.ratios)
    spread = f"{ratios[0]:.2f}–{ratios[-1]:.2f}" if len(ratios) > 1 else ""
    verdict = "" if row.target is None else "met" if row.met else "[bold]missed[/]"
    return [
        row.unit,
        number(median(pairs.measured)),
        number(median(pairs.against)),
        row.peer,
        f"{row.ratio:.2f}",
        spread,
        "" if row.target is None else f"≤ {row.target:g}",
        verdict,
    ]


def show(rows: Sequence[Row], name: str, quick: bool) -> None:
    """Print what a benchmark found."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    note = NOTE if any("template" in row.what for row in rows) else None
    table = Table(title=f"{name}: {header(quick)}", caption=note, box=box.SIMPLE)
    table.title_justify = table.caption_justify = "left"
    table.add_column("what", no_wrap=True)
    for column in ("unit", "ours", "peer's", "peer", "ratio", "range", "target", ""):
        justify: Literal["left", "right"] = "left" if column in ("unit", "peer") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(row.what, *cells(row))
    console = Console()
    console.width = max(console.width, 128)
    console.print(table)
