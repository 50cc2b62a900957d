"""The file ``metrics.csv``: one measured number a row, readable at any moment of a run."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from truerisk.core.atomic_files import DAMAGED, find_fault, replacing, tell_damage
from truerisk.core.errors import ConfigError

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


def read_rows(path: Path, strict: bool = False) -> list[bytes]:
    """Read the rows of a metrics file, without its header and a last line that was cut off.

    Args:
        path: of the file; where there is none, there are no rows.
        strict: whether a file that was damaged is an error, rather than read as far as it goes.

    Raises:
        ConfigError: it is damaged: the header is another, or a row has too few columns.
    """
    text = path.read_bytes() if path.exists() else b""
    header, *lines = text.splitlines(keepends=True) or [HEADER]
    rows = [line for line in lines if line.endswith(b"\n") and line.count(b",") >= 3]
    if strict:
        torn = bool(lines) and not lines[-1].endswith(b"\n")  # being written, or cut off by a kill
        if not HEADER.startswith(header.rstrip(b"\r\n")) or len(rows) < len(lines) - torn:
            raise ConfigError(f"{path} is damaged: it is no table of {HEADER.decode().strip()}")
    return rows


def row_step(row: bytes) -> int:
    """Read the optimizer step in a row's first column."""
    return int(row.partition(b",")[0])


def row_name(row: bytes) -> str:
    """Read the metric's name in a row's third column."""
    return next(csv.reader([row.decode()]))[2]


def trim_rows(path: Path, last_step: int) -> list[bytes]:
    """Drop the rows after a step, and a torn last line.

    The file is replaced as a whole, so that a kill in between leaves the old one. One that was
    damaged is put aside.

    Args:
        path: the metrics file; it is created if there is none.
        last_step: the last optimizer step to keep.

    Returns:
        The rows kept.
    """
    try:
        rows = read_rows(path, strict=True)
        # rows from before a checkpoint were whole when it was written
        if rows and find_fault(path) and row_step(rows[-1]) < last_step:
            print(
                f"{path} is torn: what the run had measured after step "
                f"{row_step(rows[-1])} is lost",
                file=sys.stderr,
            )
            DAMAGED.append(path)
        rows = [row for row in rows if row_step(row) <= last_step]
    except (ConfigError, ValueError, OSError):
        rows = []
        tell_damage(path, "is damaged", "begun anew")
    with replacing(path) as part:
        part.write_bytes(HEADER + b"".join(rows))
    return rows


@dataclass(frozen=True)
class MetricRows:
    """A run's measurements, a row a number, in the order in which they were logged.

    Attributes:
        step: optimizer steps, int64 [n].
        epoch: epochs, float64 [n]; nan where a number belongs to none.
        name: of the metric, [n].
        value: what was logged, to the last bit, float64 [n].
    """

    step: np.ndarray
    epoch: np.ndarray
    name: list[str]
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.name)

    def select(self, name: str) -> MetricRows:
        """Select a metric's rows, the first of each step, in the order of steps.

        Args:
            name: of the metric, such as ``risk/val``.
        """
        first: dict[int, int] = {}
        for row, (own, step) in enumerate(zip(self.name, self.step.tolist(), strict=True)):
            if own == name:
                first.setdefault(step, row)
        rows = np.array([first[step] for step in sorted(first)], dtype=np.int64)
        return MetricRows(self.step[rows], self.epoch[rows], [name] * len(rows), self.value[rows])


def read_metric_rows(folder: str | Path) -> MetricRows:
    """Read a run's measurements without loading pandas, which takes 60 MiB.

    A last line cut off by a kill is left out; a run that has not logged yet gives no rows.

    Args:
        folder: of the run.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not the folder of a run")
    rows = list(csv.reader(row.decode() for row in read_rows(path)))
    step, epoch, name, value = zip(*rows, strict=True) if rows else ((), (), (), ())
    return MetricRows(
        np.array([int(text) for text in step], dtype=np.int64),
        np.array([float(text or "nan") for text in epoch], dtype=np.float64),
        list(name),
        # Python's float, not pandas' parser, gives back the very number that was written
        np.array([float(text) for text in value], dtype=np.float64),
    )


def read_history(folder: str | Path) -> pd.DataFrame:
    """Read a run's measurements as a tidy table: columns step, epoch, name, value.

    ``epoch`` is a nullable integer, ``value`` a float64 that equals the logged number to the last
    bit. A last line cut off by a kill is left out; a run that has not logged yet gives no rows.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
    """
    import pandas as pd

    rows = read_metric_rows(folder)
    columns = {
        "step": rows.step,
        "epoch": pd.array([None if np.isnan(e) else int(e) for e in rows.epoch], dtype="Int64"),
        "name": rows.name,
        "value": rows.value,
    }
    return pd.DataFrame(columns).astype({"name": "str"})
