"""Where a run's numbers are written: CSV always, W&B, TensorBoard and MLflow by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truerisk.logger.csv import TidyCSV
    from truerisk.logger.history import read_history
    from truerisk.logger.mlflow import MLflow
    from truerisk.logger.tensorboard import TensorBoard
    from truerisk.logger.wandb import WandB

__all__ = ["MLflow", "TensorBoard", "TidyCSV", "WandB", "read_history"]

_HOME = {
    "MLflow": "mlflow",
    "TensorBoard": "tensorboard",
    "TidyCSV": "csv",
    "WandB": "wandb",
    "read_history": "history",
}


def __getattr__(name: str) -> Any:
    """Import a logger when it is asked for: each needs Lightning, which takes seconds."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
