"""Lightning's early stopping, counting measurements instead of epochs."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from truerisk.core.errors import ConfigError, suggest

OF_STEPS = ("batch/loss", "grad_norm")
"""What an epoch's steps give, so that it is not there before the first."""


class Patience(EarlyStopping):
    """Lightning's `EarlyStopping` that looks only at freshly measured values.

    Risks may be measured every few epochs only; the value left over from an earlier epoch must
    not count as one more without improvement.
    """

    _seen: Tensor | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the name against what is measured of the initial weights."""
        known = [*trainer.callback_metrics, *OF_STEPS]
        if trainer.callback_metrics and self.monitor not in known:
            raise ConfigError(
                f"regularizer.early_stopping.monitor={self.monitor} is not measured; "
                f"{suggest(self.monitor, known)}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check, if something has been measured since the last time."""
        latest = trainer.callback_metrics.get(self.monitor)
        if latest is not None and latest is not self._seen:
            self._seen = latest
            super().on_train_epoch_end(trainer, pl_module)
