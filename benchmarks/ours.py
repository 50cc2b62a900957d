"""A whole run of truerisk's: validation every epoch, checkpoints, early stopping, CSV."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest.mock import patch

from benchmarks.task import Task

if TYPE_CHECKING:
    from benchmarks.turns import Turns
    from truerisk.engine.loop import TrainingLoop

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
    """A run beside the bare loop, from the start of its loop to its last file."""
    from benchmarks.turns import Turns
    from truerisk.engine.loop import TrainingLoop

    turns, steps = Turns(task), 0
    train_loop, end_epoch = TrainingLoop.train, TrainingLoop.end_epoch

    def timed_train(loop: TrainingLoop) -> None:
        turns.begin()
        train_loop(loop)
        turns.end(steps)

    def paced_end(loop: TrainingLoop) -> None:
        nonlocal steps
        steps = loop.first.state.step
        end_epoch(loop)
        turns.give_way()

    with (
        patch.object(TrainingLoop, "train", timed_train),
        patch.object(TrainingLoop, "end_epoch", paced_end),
    ):
        train(task, epochs, *overrides)
    return turns
