"""The same training in lightning-hydra-template's style.

Automatic optimization, torchmetrics and ``self.log`` in every step, a ``DataLoader`` that collates
sample by sample, best and last checkpoints, early stopping, CSV; the progress bar is off.
"""

from __future__ import annotations

import logging
import warnings
from tempfile import TemporaryDirectory

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.task import Task
from benchmarks.turns import Turns, TurnsCallback


class Classifier(L.LightningModule):
    def __init__(self, task: Task) -> None:
        super().__init__()
        classes = task.widths[-1]
        self.model, self.criterion = task.model(), torch.nn.CrossEntropyLoss()
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_acc = MulticlassAccuracy(classes, average="micro")
        self.val_acc = MulticlassAccuracy(classes, average="micro")
        self.val_acc_best = MaxMetric()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def _measured(self, batch: list[Tensor], split: str) -> Tensor:
        x, y = batch
        outputs = self(x)
        loss = self.criterion(outputs, y)
        mean, accuracy = getattr(self, f"{split}_loss"), getattr(self, f"{split}_acc")
        mean(loss)
        accuracy(outputs.argmax(1), y)
        self.log(f"{split}/loss", mean, on_step=False, on_epoch=True, prog_bar=True)
        self.log(f"{split}/acc", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        return self._measured(batch, "train")

    def validation_step(self, batch: list[Tensor], _index: int) -> None:
        self._measured(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


def _trainer(folder: str, epochs: int, watching: list[Callback]) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        callbacks=[
            ModelCheckpoint(folder, monitor="val/acc", mode="max", save_last=True),
            EarlyStopping("val/acc", mode="max", patience=100_000),
            *watching,
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def train(task: Task, epochs: int, *watching: Callback) -> None:
    """Train, and validate after each epoch."""
    _quiet()
    (x, y), n, end = task.samples(), task.num_train, task.num_train + task.num_val
    batches = DataLoader(TensorDataset(x[:n], y[:n]), batch_size=task.batch_size, shuffle=True)
    val = DataLoader(TensorDataset(x[n:end], y[n:end]), batch_size=task.batch_size)
    with TemporaryDirectory() as folder:
        _trainer(folder, epochs, list(watching)).fit(Classifier(task), batches, val)


def timed(task: Task, epochs: int) -> Turns:
    """A run beside the bare loop."""
    turns = Turns(task)
    train(task, epochs, TurnsCallback(turns))
    return turns
