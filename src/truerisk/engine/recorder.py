"""The only writer of a run's folder: metrics, checkpoints, summary.

Checkpoints are written aside and renamed, often enough that a kill costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from truerisk.core.atomic_files import replacing
from truerisk.engine.state import BestWeights
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder


class Recorder:
    """Write what a run leaves behind; only the first of several processes does.

    Args:
        run: the folder.
        config: the plain, resolved configuration, which checkpoints hold too.
        loggers: what is told of every number as it is measured.
        writes: whether this process writes.
        draw: draws the run's figures, for loggers that show them; None where there are none.
    """

    def __init__(
        self,
        run: RunFolder,
        config: Mapping[str, Any],
        loggers: Sequence[Any],
        writes: bool = True,
        draw: Callable[[], None] | None = None,
    ) -> None:
        self.run, self.config, self.writes, self.draw = run, dict(config), writes, draw
        self.loggers = list(loggers) if writes else []
        self.best_epoch: int | None = None
        self.summary: Mapping[str, Measured] = {}

    def open(self) -> None:
        """Open the loggers, so that what they cannot do is said before training."""
        for logger in self.loggers:
            _ = getattr(logger, "experiment", None)

    def log(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        """Tell every logger some numbers.

        Args:
            values: numbers by name.
            step: optimizer steps taken.
            epoch: the epoch they belong to.
        """
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": epoch}, step=step)

    def save(
        self, checkpoint: Mapping[str, Any], best: BestWeights | None, data: Mapping[str, Any]
    ) -> None:
        """Write ``last.ckpt``, to go on from, and ``best.ckpt``, the weights that count.

        The best weights travel in ``last.ckpt`` as well, so that one file, renamed into place, is
        always a whole and consistent run.

        Args:
            checkpoint: see `TrainingRun.checkpoint`.
            best: the best weights so far.
            data: what the data fitted to the training set.
        """
        if self.writes:
            write_tensors(self.run.last, dict(checkpoint))
            self.save_best(best, data)

    def save_best(self, best: BestWeights | None, data: Mapping[str, Any]) -> None:
        """Write ``best.ckpt``, unless it holds these weights already."""
        if self.writes and best is not None and best.epoch != self.best_epoch:
            write_tensors(self.run.best, {**best._asdict(), "data": dict(data)})
            self.best_epoch = best.epoch

    def close(self, status: str) -> None:
        """Finish the record; of a run that has ended loggers are told what counts, if they ask.

        Args:
            status: ``finished``, ``diverged``, ``interrupted`` or ``failed``.
        """
        ended = status in ("finished", "diverged")
        for logger in self.loggers:
            if ended and getattr(logger, "shows_figures", False) and self.draw is not None:
                self.draw()
            if ended and hasattr(logger, "log_summary"):  # those of others have none
                logger.log_summary(self.summary, status)
            logger.finalize(outcome_of(status))

    def write_summary(self, summary: Mapping[str, Measured]) -> None:
        """Write what was measured at the best weights."""
        self.summary = summary
        if self.writes:
            self.run.write_summary(summary)

    def write_tables(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the metrics that are tables, by name and split, where there are any."""
        if self.writes and tables:
            self.run.write_tables(tables)

    def write_losses(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Write the losses of each sample of a tested fold, where there is one."""
        if self.writes and losses:
            self.run.write_losses({name: values.numpy() for name, values in losses.items()})


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint as a whole.

    Raises:
        OSError: the disk is full.
    """
    with replacing(path) as part, part.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch's writer says "unexpected pos" in the place of what the file said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def outcome_of(status: str) -> str:
    """Return what Lightning's loggers call the end of a run."""
    return "success" if status == "finished" else "failed"
