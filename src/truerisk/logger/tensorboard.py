"""TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from truerisk.core.errors import ConfigError
from truerisk.logger.label import best_epoch, flatten_config, flatten_summary


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing flat into ``folder/tensorboard``.

    A resumed run has TensorBoard drop the steps after the one it takes up at, so that no step
    appears twice. The config stands under the tab "Text"; under "HParams" its numbers and options
    stand beside what the run has come to: ``summary/risk/test``, … at the best weights, whose epoch
    is the step.

    Args:
        folder: the run's folder.
        config: the run's resolved config.
        resume_step: the step a resumed run takes up at.
        flush_secs: seconds between writes to the disk.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None = None,
        resume_step: int | None = None,
        flush_secs: float = 10,
    ) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "logger=tensorboard: TensorBoard is not installed; "
                "pip install 'truerisk[tensorboard]'"
            )
        super().__init__(
            save_dir=Path(folder) / "tensorboard",
            name="",
            version="",
            default_hp_metric=False,
            flush_secs=flush_secs,
            # TensorBoard drops what it has from this step on
            purge_step=None if resume_step is None else resume_step + 1,
        )
        self._config, self._told = dict(config or {}), resume_step is not None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, and the config before the first of them.

        Args:
            metrics: values by name.
            step: the optimizer step.
        """
        if self._config and not self._told:
            text = json.dumps(self._config, indent=2, default=str)
            self.experiment.add_text("config", f"```json\n{text}\n```", 0)
        self._told = True
        super().log_metrics(metrics, step)

    @rank_zero_only
    def log_summary(self, summary: Mapping[str, Any], status: str) -> None:
        """Log what the run has come to, and its row under "HParams".

        Args:
            summary: measured numbers by name, those of summary.json.
            status: how it ended.
        """
        from torch.utils.tensorboard.summary import hparams

        if not summary:
            return
        epoch = best_epoch(summary)
        # under names of their own: TensorBoard shows the last point of a series
        metrics = {f"summary/{name}": value for name, value in flatten_summary(summary).items()}
        metrics["summary/epoch"] = float(epoch or 0)
        told = {k: v for k, v in self._config.items() if k not in ("logger", "resume")}
        options = {k: v for k, v in flatten_config(told).items() if not k.endswith("._target_")}
        writer = self.experiment._get_file_writer()
        for part in hparams({**options, "status": status}, metrics):
            writer.add_summary(part)
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, epoch)

    @rank_zero_only
    def save(self) -> None:
        """Write out what is pending; Lightning's would add an empty hparams.yaml."""
        self.experiment.flush()
