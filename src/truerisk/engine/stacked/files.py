"""The files of a member's run, as an ordinary run writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from truerisk.assemble import build_loggers
from truerisk.core.files import replacing
from truerisk.engine.checkpoint import load
from truerisk.engine.stacked.member import Member
from truerisk.logger import TidyCSV, read_history
from truerisk.logger.label import recipe_name
from truerisk.result import RunResult
from truerisk.run import RunFolder
from truerisk.show.figure import risk_figure


class Files:
    """Writes one member's metrics, checkpoints and summary.

    The record is kept in ``metrics.csv`` as the run goes on; other loggers, of which hundreds would
    be open at once, are given it when the run ends.
    """

    def __init__(self, member: Member, resumed: bool) -> None:
        self.member, self.run = member, member.run
        self.csv = TidyCSV(self.run.path, member.count if resumed else None)
        self._best_epoch: int | None = None

    def log(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        """Add numbers to the record, at the present step."""
        epoch = self.member.epoch if epoch is None else epoch
        self.csv.log_metrics({**values, "epoch": epoch}, self.member.count)

    def save(self) -> None:
        """Write ``last.ckpt``, to go on from, and the best weights."""
        _write(self.run.last, self.member.checkpoint())
        self.save_best()

    def save_best(self) -> None:
        """Write ``best.ckpt``, if the best weights are not those it holds."""
        best = self.member.best
        if best is not None and best.epoch != self._best_epoch:
            data = self.member.recipe.data.state_dict()
            _write(self.run.best, {**best._asdict(), "data": data})
            self._best_epoch = best.epoch

    def close(self, status: str, reason: str) -> None:
        """Finish the record, hand it to the other loggers, and tell how the run ended."""
        self.csv.finalize("success")
        if status != "interrupted":
            self._hand_over(status)
        self.run.write_summary(self.member.final)
        self._draw()
        self.run.set_status(status, reason)

    def _draw(self) -> None:
        if not self.member.cfg.get("figures", True):
            return
        history, result = read_history(self.run.path), RunResult(self.run.path)
        if len(history):
            risk_figure(history, result.figure, title=recipe_name(self.member.cfg))

    def _hand_over(self, status: str) -> None:
        loggers = [
            logger
            for logger in build_loggers(
                self.member.cfg, folder=self.run.path, run_id=self.run.id, resume_step=None
            )
            if not isinstance(logger, TidyCSV)
        ]
        for logger in loggers:
            _tell(logger, self.run.path)
            logger.finalize("success" if status == "finished" else "failed")


def _tell(logger: Logger, folder: Path) -> None:
    history = read_history(folder)
    for (step, epoch), rows in history.groupby(["step", "epoch"], sort=False, dropna=False):
        values: dict[str, Any] = dict(zip(rows.name, rows.value, strict=True))
        logger.log_metrics({**values, "epoch": epoch}, step=int(step))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        torch.save(dict(content), part)


def begun(run: RunFolder) -> Mapping[str, Any] | None:
    """The checkpoint of a run that was cut off; None where it must start anew."""
    return load(run.last) if run.last.exists() else None
