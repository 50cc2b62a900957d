"""The record every run keeps: ``metrics.csv``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truerisk.core.atomic_files import naming_file
from truerisk.logger.history import FILE, quote_name, row_name, row_step, trim_rows


def append_bytes(file: int, rows: bytes) -> None:
    """Write all bytes to a file descriptor.

    Args:
        file: the descriptor, opened for appending.
        rows: what to write.

    Raises:
        OSError: the disk is full.
    """
    # one call, so that no kill comes in between, unless the system takes less
    while rows:
        rows = rows[os.write(file, rows) :]


class TidyCSV:
    """Writes ``folder/metrics.csv`` with the columns step, epoch, name, value.

    Each call of ``log_metrics`` is one append by the operating system, so a kill loses no earlier
    row. Floats are written with the digits that give them back exactly; ``nan`` and ``inf`` stay as
    they are. The metric ``epoch``, which Lightning adds to every call, becomes the epoch column.

    A ``lightning.Trainer`` may be given one: it has all that is asked of a logger, without the base
    class, whose import takes longer than a short run.

    Args:
        folder: the run's folder.
        resume_step: where a resumed run takes up: later rows are dropped, and what was measured at
            this very step already is not written twice. None starts a new file.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        self.path = Path(folder) / FILE
        self.resume_step = resume_step
        self._file: int | None = None
        self._trimmed = False
        self._logged_names: set[str] = set()

    # the folder is the run's own: no part of a path is added
    name = version = ""
    group_separator = "/"

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    root_dir = log_dir = save_dir

    @property
    def experiment(self) -> TidyCSV:
        """This logger, with its file in place: Lightning asks for it when a run begins."""
        self._open_file()
        return self

    def do_nothing(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has the hyperparameters, and the run's folder the rest."""

    log_hyperparams = log_graph = save = after_save_checkpoint = do_nothing

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append one row a metric, in one write.

        Args:
            metrics: values by name; ``epoch`` becomes the epoch of the rows.
            step: the optimizer step; None is 0.
        """
        if step is None:
            step = 0
        epoch = ""
        if metrics.get("epoch") is not None:
            epoch = str(int(metrics["epoch"]))
        start = f"{step},{epoch},"
        file = self._open_file()
        skip = self._logged_names if step == self.resume_step else ()
        rows = [
            f"{start}{quote_name(name)},{float(value)!r}\n"
            for name, value in metrics.items()
            if name != "epoch" and name not in skip
        ]
        with naming_file(self.path):
            append_bytes(file, "".join(rows).encode())

    def finalize(self, status: str) -> None:
        """Close the file; another ``log_metrics`` opens it again and appends."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_file(self) -> int:
        """Open the file for appending; the first time, drop what a resumed run writes again."""
        if not self._trimmed:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            rows = trim_rows(self.path, -1 if self.resume_step is None else self.resume_step)
            self._logged_names = {
                row_name(row) for row in rows if row_step(row) == self.resume_step
            }
            self._trimmed = True
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        # a file descriptor means nothing in another process
        return {**self.__dict__, "_file": None}
