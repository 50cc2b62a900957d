"""The file ``metrics.csv``: one measured number a row, readable at any moment of a run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from truerisk.core.atomic_files import replacing

if TYPE_CHECKING:
    import pandas as pd

FILE = "metrics.csv"
HEADER = b"step,epoch,name,value\n"


def quote_name(name: str) -> str:
    """Write a metric's name as a CSV field on one line (RFC 4180).

    >>> quote_name("risk/val"), quote_name("lr/a,b")
    ('risk/val', '"lr/a,b"')
    """
    name = " ".join(name.splitlines())
    return '"' + name.replace('"', '""') + '"' if {",", '"'} & set(name) else name


def read_rows(path: Path) -> list[bytes]:
    """Read the rows of a metrics file, without its header and a last line that was cut off."""
    text = path.read_bytes() if path.exists() else b""
    lines = text.splitlines(keepends=True)[1:]
    return [line for line in lines if line.endswith(b"\n") and line.count(b",") >= 3]


def row_step(row: bytes) -> int:
    """Read the optimizer step in a row's first column."""
    return int(row.partition(b",")[0])


def row_name(row: bytes) -> str:
    """Read the metric's name in a row's third column."""
    return next(csv.reader([row.decode()]))[2]


def trim_rows(path: Path, last_step: int) -> list[bytes]:
    """Drop the rows after a step, and a torn last line.

    The file is replaced as a whole, so that a kill in between leaves the old one.

    Args:
        path: the metrics file; it is created if there is none.
        last_step: the last optimizer step to keep.

    Returns:
        The rows kept.
    """
    rows = [row for row in read_rows(path) if row_step(row) <= last_step]
    with replacing(path) as part:
        part.write_bytes(HEADER + b"".join(rows))
    return rows


def read_history(folder: str | Path) -> pd.DataFrame:
    """Read a run's measurements as a tidy table: columns step, epoch, name, value.

    ``epoch`` is a nullable integer, ``value`` a float64 that equals the logged number to the last
    bit. A last line cut off by a kill is left out; a run that has not logged yet gives no rows.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
    """
    import pandas as pd

    path = Path(folder) / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not the folder of a run")
    rows = list(csv.reader(row.decode() for row in read_rows(path)))
    step, epoch, name, value = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = {
        "step": pd.array([int(s) for s in step], dtype="int64"),
        "epoch": pd.array([int(e) if e else None for e in epoch], dtype="Int64"),
        "name": list(name),
        # Python's float, not pandas' parser, gives back the very number that was written
        "value": pd.array([float(v) for v in value], dtype="float64"),
    }
    return pd.DataFrame(columns).astype({"name": "str"})
