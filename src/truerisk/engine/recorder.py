"""The only writer of a run's folder: metrics, checkpoints, summary.

Checkpoints are written aside and renamed, often enough that a kill costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from truerisk.core.atomic_files import replacing
from truerisk.core.errors import ConfigError, first_line
from truerisk.engine.state import BestWeights
from truerisk.logger import read_history
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Recorder:
    """Write what a run leaves behind; only the first of several processes does.

    Args:
        run: the folder.
        config: the plain, resolved configuration, which checkpoints hold too.
        loggers: what is told of every number as it is measured.
        late: makes the loggers that are told of all of them when the run ends. Of hundreds of runs
            at once not every logger can be open.
        writes: whether this process writes.
        draw: draws the run's figures, for loggers that show them; None where there are none.
    """

    def __init__(
        self,
        run: RunFolder,
        config: Mapping[str, Any],
        loggers: Sequence[Any],
        late: Callable[[], Sequence[Logger]] = list,
        writes: bool = True,
        draw: Callable[[], None] | None = None,
    ) -> None:
        self.run, self.config, self.late, self.writes = run, dict(config), late, writes
        self.draw = draw
        self.loggers = list(loggers) if writes else []
        self.best_epoch: int | None = None

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
        """Finish the record; a run that has ended is told to the late loggers.

        Args:
            status: ``finished``, ``diverged``, ``interrupted`` or ``failed``.
        """
        ended = self.writes and status in ("finished", "diverged")
        for logger in self.loggers:
            if ended:
                self._tell_summary(logger, status)
            logger.finalize(outcome_of(status))
        for logger in self.late() if ended else ():
            replay(self.run.path, logger)
            self._tell_summary(logger, status)
            logger.finalize(outcome_of(status))

    def _tell_summary(self, logger: Logger, status: str) -> None:
        """Tell a logger what counts of the run, if it asks for it; those of others do not."""
        if getattr(logger, "shows_figures", False) and self.draw is not None:
            self.draw()
        if hasattr(logger, "log_summary"):
            logger.log_summary(self.run.summary(), status)

    def write_summary(self, summary: Mapping[str, Measured]) -> None:
        """Write what was measured at the best weights."""
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


def replay(folder: Path, logger: Logger) -> None:
    """Tell a logger all that a run's folder has recorded."""
    history = read_history(folder)
    for (step, epoch), rows in history.groupby(["step", "epoch"], sort=False, dropna=False):
        values: dict[str, Any] = dict(zip(rows.name, rows.value, strict=True))
        logger.log_metrics({**values, "epoch": epoch}, step=int(step))


def load_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        path: ``last.ckpt`` or ``best.ckpt``.
        device: where its tensors go.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist: it is lost, or the run was cut off before its first checkpoint"
        )
    remedy = "; train the run again"
    if path.with_name("last.ckpt").exists():
        remedy = "; delete it, and truerisk train resume=FOLDER of the run writes it again"
    if path.name == "last.ckpt":
        remedy = "; delete it, and resume starts the run anew"
    try:
        # `weights_only`, as a pickle that comes from elsewhere could run any code
        content = torch.load(path, map_location=device, weights_only=True)
    # a torn or foreign file fails in as many ways as zip and pickle have
    except Exception as error:
        why = first_line(error)
        if "weights_only" in str(error):
            # torch advises to load it by pickle, which is how a file from elsewhere runs its code
            why = "it is damaged, or holds more than weights and numbers"
        raise ConfigError(f"{path} is not a readable checkpoint ({why}){remedy}") from error
    # last.ckpt has the one, best.ckpt the other
    if not {"truerisk", "state"} & set(content):
        raise ConfigError(f"{path} is not a readable checkpoint of a run{remedy}")
    return content
