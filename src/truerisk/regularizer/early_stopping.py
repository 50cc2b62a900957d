"""Early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from truerisk.core.checks import check_float, check_int
from truerisk.regularizer.base import Regularizer

if TYPE_CHECKING:
    from lightning.pytorch import Callback


class EarlyStopping(Regularizer):
    """Ends the run once the validation risk has not fallen for ``patience`` measurements in a row.

    A fall counts if it exceeds ``min_delta``. The weights of the best measurement are kept in any
    case, so the patience costs time only.

    Source: Prechelt, "Early Stopping — But When?", in Neural Networks: Tricks of the Trade (1998),
    criterion UP; carried out by Lightning's `EarlyStopping`.

    Args:
        patience: measurements without a fall; one an epoch where ``risk.every`` is 1.
        min_delta: least fall that counts.
        monitor: name of the measured value; lower is better.
    """

    needs_validation = True

    def __init__(self, patience: int, min_delta: float = 0.0, monitor: str = "risk/val") -> None:
        self.patience = check_int("regularizer.early_stopping.patience", patience)
        self.min_delta = check_float("regularizer.early_stopping.min_delta", min_delta)
        self.monitor = monitor

    def callbacks(self) -> list[Callback]:
        """Lightning's early stopping, on measured values."""
        from truerisk.regularizer.patience import Patience

        return [
            Patience(
                self.monitor,
                min_delta=self.min_delta,
                patience=self.patience,
                mode="min",
                check_on_train_epoch_end=True,
            )
        ]
