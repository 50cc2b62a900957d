"""A whole run of truerisk's: validation every epoch, checkpoints, early stopping, CSV."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.task import Task

if TYPE_CHECKING:
    from benchmarks.turns import Turns

CONF = Path(__file__).parent / "conf"


def train(task: Task, epochs: int, *overrides: str) -> None:
    """``truerisk train``, without its progress on the screen."""
    import truerisk

    given = [
        *task.overrides,
        f"data.batch_size={task.batch_size}",
        f"trainer.max_epochs={epochs}",
        "threads=1",
        *overrides,
    ]
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        result = truerisk.train(given, config_dir=str(CONF), folder=Path(folder) / "run")
        assert result.status == "finished"


def timed(task: Task, epochs: int, *overrides: str) -> Turns:
    """A run beside the bare loop."""
    from benchmarks.stopwatch import Stopwatch

    stopwatch = f"regularizer.stopwatch.task={task.name}"
    train(task, epochs, "regularizer=[early_stopping,stopwatch]", stopwatch, *overrides)
    return Stopwatch.last
