"""A run under a real ``lightning.Trainer``, for the callbacks and profilers that ask for one.

The Trainer's hooks drive the same loop that trains other runs; a batch of Lightning's is a step, a
validation loop of its is a measurement. So callbacks see what they expect, and the numbers are
those of a run without them, to the last bit.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError, join_lines, suggest
from truerisk.core.stop import Stop, StopRule
from truerisk.engine.callback_rules import SERVED
from truerisk.engine.host import Host, quiet_lightning
from truerisk.engine.lightning import ModelBackend
from truerisk.engine.loop import TrainingLoop
from truerisk.engine.risk_module import RiskModule
from truerisk.engine.step import MicroBatches
from truerisk.recipe import Recipe

Pair = tuple[Tensor, Tensor]
ANNOUNCING = ("utilities.rank_zero", "callbacks")
"""Loggers of Lightning's through which callbacks speak."""


class CallbackState(StopRule):
    """Carry a callback's state through the run's checkpoints, beside those of stop rules.

    Args:
        callback: any of Lightning's.
    """

    def __init__(self, callback: L.Callback) -> None:
        self.callback, self.key = callback, callback.state_key

    def state_dict(self) -> dict[str, Any]:
        """Return the callback's state."""
        return self.callback.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give the callback its state back."""
        self.callback.load_state_dict(dict(state))


class HostedLoop(TrainingLoop):
    """The loop of a run, whose checkpoints wait until callbacks have seen the step."""

    def save_if_due(self) -> None:
        """Put it off: a callback's state would lag one step or epoch behind the weights."""

    def save_when_seen(self) -> None:
        """Save where it is time, or where an end is asked for, once callbacks have their turn."""
        super().save_if_due()


class EpochBatches:
    """The batches of the steps that are left of the epoch at hand.

    Args:
        backend: whose.
    """

    def __init__(self, backend: ModelBackend) -> None:
        self.backend = backend

    def __len__(self) -> int:
        """Return the number of steps that are left of the epoch, and of the run."""
        run = self.backend.run
        left = run.plan.steps_per_epoch - run.state.step_in_epoch
        return min(left, run.horizon - run.state.step)

    def __iter__(self) -> Iterator[Pair | list[Pair]]:
        # A generator: Lightning asks for an iterator before the data has come to the device.
        for micro_batches in self.backend.rest_of_epoch():
            pairs = [(batch.x, batch.y) for batch, _ in micro_batches]
            if len(pairs) == 1:
                yield pairs[0]
            else:
                yield pairs


class WholeSplit:
    """A split as the one batch of a validation loop, in which all is measured.

    Args:
        split: the validation samples.
    """

    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield self.split


class HostedModule(RiskModule):
    """Let a Trainer's hooks drive a loop of ours.

    Args:
        recipe: the run's parts.
        config: the plain, resolved configuration.
    """

    loop: HostedLoop

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__(recipe, config, hosted=True)

    @property
    def trained(self) -> ModelBackend:
        """The backend that trains this module."""
        assert self.backend is not None
        return self.backend

    def configure_callbacks(self) -> list[L.Callback]:
        """Add none; those there are have been looked at."""
        return []

    def setup(self, stage: str) -> None:
        """Leave data and model where the backend has them."""

    def train_dataloader(self) -> EpochBatches:
        """Return the batches of the epoch at hand."""
        return EpochBatches(self.trained)

    def val_dataloader(self) -> WholeSplit:
        """Return the one batch in which all is measured."""
        return WholeSplit(self.recipe.data.val)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Return the batch, which lies there already."""
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the run."""
        return self.trained.run.optimizer

    # --- the loop, driven by hooks ----------------------------------------------------------------

    def on_train_start(self) -> None:
        """Measure the initial weights, or go on."""
        self.count_past_steps()
        self.loop.begin()
        values = self.trained.run.values
        check_monitors(self.trainer.callbacks, values)  # type: ignore[attr-defined]
        self.log_seen(values)

    def count_past_steps(self) -> None:
        """Tell the Trainer how far a resumed run has come."""
        state, loop = self.trained.run.state, self.trainer.fit_loop
        for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
            progress.increment_by(state.epoch)
        loop.epoch_loop.manual_optimization.optim_step_progress.total.increment_by(state.step)
        loop.epoch_loop.on_load_checkpoint({"_batches_that_stepped": state.step})

    def on_train_epoch_start(self) -> None:
        """Leave the sums of the epoch to the loop."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Save, if it is time: all have seen the step before."""
        if self.loop.backend.runs and self.trained.run.state.step:
            self.loop.save_when_seen()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Take a step.

        Args:
            batch: a pair (x, y), or one for each micro-batch.
            batch_idx: its number in the epoch.

        Returns:
            ``loss``: J when the step began, a scalar.
        """
        run = self.trained.run
        if self.loop.backend.runs:
            with self.counted_step():
                self.loop.take_step(join_micro_batches(batch))
        if not self.loop.backend.runs:  # it has diverged
            self.trainer.should_stop = True
        return {"loss": torch.tensor(run.state.sums.objective)}

    def on_validation_model_eval(self) -> None:
        """Leave the mode to the backend, which evaluates."""

    def on_validation_model_train(self) -> None:
        """Leave the mode to the backend, which evaluates."""

    def on_validation_start(self) -> None:
        """Leave the weights to the backend, which evaluates."""

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Measure the epoch; returns the validation risk, a scalar."""
        with torch.enable_grad():  # Lightning has switched it off, and the loop expects it on
            self.end_epoch()
        return torch.tensor(self.trained.run.values.get("risk/val", math.nan))

    def on_validation_epoch_end(self) -> None:
        """Have logged already."""

    def on_validation_end(self) -> None:
        """Leave the weights to the backend, which evaluates."""

    def on_train_epoch_end(self) -> None:
        """End an epoch that is not measured."""
        self.end_epoch()

    def end_epoch(self) -> None:
        """End the epoch at hand, if that is yet to be done."""
        run = self.trained.run
        if self.loop.backend.runs and run.state.step_in_epoch:
            self.loop.end_epoch()
            self.log_seen(run.values)
            if not self.loop.backend.runs:
                self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """End a run that a callback has stopped."""
        if self.loop.backend.runs:
            state = self.trained.run.state
            state.stop = Stop("callback", state.step, {})
            self.loop.finish([0])

    def log_seen(self, values: Mapping[str, float]) -> None:
        """Show callbacks what was measured; loggers have been told by the recorder."""
        tensors = {name: torch.tensor(float(value)) for name, value in values.items()}
        self.log_dict(tensors, logger=False, on_step=False, on_epoch=True, batch_size=1)


def join_micro_batches(batch: Any) -> MicroBatches:
    """Return the micro-batches of a step with the shares of its samples that they have.

    Args:
        batch: a pair (x, y), or a list of them.
    """
    pairs = batch if isinstance(batch, list) else [batch]
    samples = sum(len(x) for x, _ in pairs)
    return [(Batch(x, y), len(x) / samples) for x, y in pairs]


def check_monitors(callbacks: Sequence[L.Callback], values: Mapping[str, float]) -> None:
    """Refuse callbacks that follow a number which is not measured.

    Args:
        callbacks: of the Trainer.
        values: what was measured of the initial weights; empty in a run that is resumed.

    Raises:
        ConfigError: with the nearest name there is.
    """
    names = {*values, "batch/loss", "grad_norm"}
    for callback in callbacks if values else ():
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor not in names:
            kind = type(callback).__name__
            raise ConfigError(
                f"the callback {kind} follows {monitor!r}, which is not measured; "
                f"{suggest(monitor, names)}"
            )


def host_run(
    loop: TrainingLoop, callbacks: Sequence[L.Callback], options: Mapping[str, Any]
) -> None:
    """Train a run under a Trainer.

    Args:
        loop: a `HostedLoop` over a backend of a `HostedModule`.
        callbacks: beside those that our own observers stand for.
        options: the ``trainer`` node of a configuration.

    Raises:
        ConfigError: a callback or an argument cannot work.
        Interrupted: an end was asked for; the run has been saved.
    """
    backend: Any = loop.backend
    module = backend.module
    assert isinstance(loop, HostedLoop) and isinstance(module, HostedModule)
    module.loop, module.backend = loop, backend
    if backend.run.is_over:  # there is nothing left that a callback could see
        loop.train()
        return
    with loop.letting_go(), keep_flags(), quiet_lightning(), hear_callbacks():
        trainer = make_trainer(module, backend.host, callbacks, options)
        try:
            trainer.fit(module)
        except (MisconfigurationException, ModuleNotFoundError) as error:
            raise ConfigError(f"trainer: {join_lines(error)}") from error
        except SystemExit:
            # SIGTERM ends Lightning's loop after an epoch, before our next turn to save.
            if not loop.stop_requested:
                raise
            loop.save_when_seen()
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]
    if getattr(profiler, "filename", None) is None:
        summary = profiler.summary()
        if summary:
            print(summary)


def make_trainer(
    module: HostedModule, host: Host, callbacks: Sequence[L.Callback], options: Mapping[str, Any]
) -> L.Trainer:
    """Make the Trainer of a run.

    Args:
        module: what it trains.
        host: the process and the device, which it is given.
        callbacks: that it calls.
        options: the ``trainer`` node of a configuration.

    Raises:
        ConfigError: an argument cannot work.
    """
    run = module.trained.run
    folder = run.recorder.run.path
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            # Beside ours, as both may be called last.ckpt.
            callback.dirpath = str(folder / "checkpoints" / "lightning")
    arguments = {k: v for k, v in options.items() if k not in SERVED and v is not None}
    arguments = {
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_model_summary": any(isinstance(c, ModelSummary) for c in callbacks),
        **arguments,
    }
    try:
        return L.Trainer(
            accelerator=host.device.type,
            devices=1,
            # The backend casts, where it must; a plugin of Lightning's would cast all of a step.
            precision="32-true",
            max_epochs=run.max_epochs,
            max_steps=options.get("max_steps", -1),
            detect_anomaly=bool(options.get("detect_anomaly", False)),
            check_val_every_n_epoch=run.recipe.risk.every,
            callbacks=list(callbacks),
            logger=run.recorder.loggers,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            default_root_dir=Path(folder),
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,  # the last epoch may be shorter
            # A scheduler's own job is not looked at, whose size is none of this process's business.
            plugins=[LightningEnvironment()],
            **arguments,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {join_lines(error)}") from error


@contextmanager
def keep_flags() -> Iterator[None]:
    """Undo what a Trainer leaves switched after the block."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark, anomaly = torch.backends.cudnn.benchmark, torch.is_anomaly_enabled()
    gradients = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.autograd.set_detect_anomaly(anomaly)
        torch.set_grad_enabled(gradients)


@contextmanager
def hear_callbacks() -> Iterator[None]:
    """Let what callbacks announce come through, though Lightning's own announcements do not."""
    loggers = [logging.getLogger(f"lightning.pytorch.{name}") for name in ANNOUNCING]
    before = [(logger.level, logger.propagate) for logger in loggers]
    handler = logging.StreamHandler()

    def is_meant(record: logging.LogRecord) -> bool:
        # Most announcements go through the first of these loggers, whoever makes them: only the
        # file they come from tells them apart.
        return record.levelno > logging.INFO or "callbacks" in Path(record.pathname).parts

    handler.addFilter(is_meant)
    with warnings.catch_warnings():
        # A run of ours is often shorter; and a checkpoint after a step is what is meant here.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optim")
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False  # above, Lightning's handler and Hydra's would say it twice
        try:
            yield
        finally:
            for logger, (level, propagate) in zip(loggers, before, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)
                logger.propagate = propagate
