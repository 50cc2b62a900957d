"""RiskModule: the recipe as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from truerisk import sharding
from truerisk.core import rng
from truerisk.core.deterministic import refresh_statistics
from truerisk.core.errors import Diverged
from truerisk.engine import nonfinite
from truerisk.engine.chunks import Chunks, Position
from truerisk.engine.step import MicroBatches, Step
from truerisk.objective import Objective
from truerisk.recipe import Recipe
from truerisk.risk.estimate import gap, numbers
from truerisk.risk.gauge import Gauge
from truerisk.risk.measured import Measured


class Best(NamedTuple):
    """The weights with the lowest validation risk so far."""

    risk: float
    epoch: int
    step: int
    state: dict[str, Tensor]


class RiskModule(L.LightningModule):
    """Trains a recipe and measures it.

    Optimization is manual: Lightning hands over chunks of mini-batches, and ``Step`` takes every
    optimizer step. After an epoch, train and validation risk are measured alike, with the weights
    held still; the weights with the lowest validation risk are kept in ``best``.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe, self.data, self.model = recipe, recipe.data, recipe.model
        self.surrogate = recipe.surrogate  # a submodule, so that class weights move along
        self.objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
        self.epoch, self.step_in_epoch = 0, 0
        self.best: Best | None = None
        self.final: dict[str, Measured] = {}
        self.stop_requested = ""
        self._resumed: dict[str, Any] | None = None

    # --- set-up -------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Plan the batches, now that the number of processes is known."""
        self.gauge = Gauge(self.recipe, self.objective, self.trainer)
        if stage != "fit":
            return
        self.plan = self.recipe.plan(self.trainer.global_rank, self.trainer.world_size)
        self.horizon = self._total_steps()
        for regularizer in self.recipe.regularizers.values():
            regularizer.start(self.horizon, self.plan.steps_per_epoch)

    def _total_steps(self) -> int:
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        limits = [] if steps < 0 else [steps]
        if epochs is not None and epochs >= 0:
            limits.append(epochs * self.plan.steps_per_epoch)
        return min(limits)

    def configure_model(self) -> None:
        """Shard the parameters where the strategy asks for it."""
        if isinstance(self.trainer.strategy, sharding.FullyShardedStrategy):
            for hook in ("penalty", "project", "average"):
                sharding.refuse(self.recipe.hooks(hook))
            mesh: Any = self.device_mesh
            sharding.shard(self.model, mesh["data_parallel"])
            self.objective = Objective(self.model, self.surrogate)
            self.gauge.objective = self.objective

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer, and its schedule over the run's real number of steps."""
        optimizer = self.recipe.optimizer(self.model)
        schedule = self.recipe.schedule(optimizer, self.horizon)
        self.take_step = Step(self.recipe, self.objective, optimizer, schedule, _Engine(self))
        return optimizer

    def on_fit_start(self) -> None:
        """Bring the data to the device, and take up what a checkpoint left."""
        self._place_data()
        self._train_mode(True)
        if self._resumed is not None:
            self.take_step.load_state_dict(self._resumed["step"])
            self.count_steps()
            for name, state in self._resumed["regularizers"].items():
                self.recipe.regularizers[name].load_state_dict(state)

    def on_train_start(self) -> None:
        """Measure the initial weights, as epoch 0, or go on with a run's random streams."""
        if self._resumed is None:
            self.record()
        else:
            rng.set_state(self._resumed["rng"][self.trainer.global_rank])

    # --- training -----------------------------------------------------------------------------

    def train_dataloader(self) -> Chunks:
        """What is left of the epoch."""
        world = self.trainer.world_size
        return Chunks(self.plan, self.data.train, self._where, self._until_a_look, world)

    def _where(self) -> Position:
        count = self.take_step.count
        end = min(self.plan.steps_per_epoch, self.step_in_epoch + self.horizon - count)
        return Position(self.epoch, self.step_in_epoch, end, count)

    def _until_a_look(self, count: int) -> float:
        """Steps until a callback that has an ``until`` wants to see the weights."""
        callbacks: Any = self.trainer.callbacks  # type: ignore[attr-defined]
        looks = (getattr(callback, "until", None) for callback in callbacks)
        return min((look(count) for look in looks if look is not None), default=math.inf)

    def training_step(self, chunk: Iterator[MicroBatches], _index: int) -> None:
        """Take the optimizer steps of a chunk."""
        for micro_batches in chunk:
            self.take_step(micro_batches)
            self.step_in_epoch += 1
            if self.stop_requested and self.trainer.world_size == 1:
                break
        self.count_steps()

    def count_steps(self) -> None:
        """Tell Lightning how many optimizer steps have been taken."""
        manual = self.trainer.fit_loop.epoch_loop.manual_optimization
        progress = manual.optim_step_progress.total
        progress.ready = progress.completed = self.take_step.count

    def request_stop(self, why: str) -> None:
        """Ask for an end after the present step."""
        self.stop_requested = why

    def on_train_epoch_end(self) -> None:
        """Measure the epoch where that is due; the last one always is."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        last = self.take_step.count >= self.horizon or self.trainer.should_stop
        if last or self.epoch % self.recipe.risk.every == 0:
            self.record()
        self.take_step.sums.clear()

    # --- measuring ----------------------------------------------------------------------------

    def record(self) -> None:
        """Measure the risks, log them, and keep the weights if they are the best yet."""
        with self.evaluation() as state:
            metrics = self.gauge.during(state, self.epoch)
            risk = metrics["risk/val"].value
            if not math.isfinite(risk):
                bad = nonfinite.first_bad_weight(self.model) or self.surrogate.task.val_title
                raise Diverged(self.take_step.count, bad)
            if self.best is None or risk < self.best.risk:
                weights = sharding.whole_state(self.model) | dict(state or {})
                kept = {name: tensor.detach().clone() for name, tensor in weights.items()}
                self.best = Best(risk, self.epoch, self.take_step.count, kept)
        self.take_step.schedule.step_epoch(risk)
        groups = enumerate(self.take_step.optimizer.param_groups)
        rates = {f"lr/{i}": float(group["lr"]) for i, group in groups}
        self._log(metrics, rates | self.take_step.means(), self.epoch)

    @contextmanager
    def evaluation(self) -> Iterator[Mapping[str, Tensor] | None]:
        """Eval mode, at the weights that count: yields them, or None for the model's own.

        Afterwards training goes on with the very bits it had.
        """
        regularizers = self.recipe.regularizers.values()
        averager = next((r for r in regularizers if r.averaged() is not None), None)
        state: Any = None if averager is None else averager.averaged()
        moved = self.take_step.params if self.recipe.needs.train_eval_modes else []
        before = [p.detach().clone() for p in moved]
        with self.trainer.precision_plugin.val_step_context():
            if averager is not None and averager.refresh_statistics:
                state = refresh_statistics(self.model, state, self.gauge.training_inputs())
            self._train_mode(False)
            self.agree_on_buffers()
            yield state
        self._train_mode(True)
        with torch.no_grad():
            for p, old in zip(moved, before, strict=True):
                p.copy_(old)

    def _train_mode(self, training: bool) -> None:
        self.model.train(training)
        if self.recipe.needs.train_eval_modes:
            optimizer: Any = self.take_step.optimizer
            optimizer.train() if training else optimizer.eval()

    def agree_on_buffers(self) -> None:
        """Running statistics differ between processes, but all must measure one model."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _log(self, metrics: dict[str, Measured], plain: dict[str, float], epoch: int) -> None:
        """Send values to every logger, and to callbacks that monitor them.

        Not by ``self.log``, which costs tens of µs a value and counts in Lightning's batches.
        """
        self.log_values(numbers(metrics, plain), epoch)

    def log_values(self, values: dict[str, float], epoch: int | None = None) -> None:
        """Log numbers by name, at the present step."""
        epoch = self.epoch if epoch is None else epoch
        exact = {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        self.trainer.callback_metrics.update(exact)
        if self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                logger.log_metrics({**values, "epoch": epoch}, step=self.take_step.count)

    # --- the finished run ---------------------------------------------------------------------

    def on_train_end(self) -> None:
        """Measure the best weights on all the samples there are, while the loggers are open."""
        if self.best is None:
            return
        sharding.load_whole_state(self.model, self.best.state)
        self.model.eval()
        with self.trainer.precision_plugin.val_step_context():
            for name in self._final_names():
                self.test_step(name, 0)
        self.log_final()

    def log_final(self) -> None:
        """Log what only the end of a run measures."""
        new = ("test", "true", "bayes")
        metrics = {k: m for k, m in self.final.items() if k.rpartition("/")[2] in new}
        self._log(metrics, {}, self.best.epoch if self.best else self.epoch)

    def _final_names(self) -> list[str]:
        return self.gauge.splits() + (["true"] if self.data.population is not None else [])

    def test_dataloader(self) -> DataLoader:
        """The names of what is measured at the end."""
        return DataLoader(self._final_names(), batch_size=None)  # type: ignore[arg-type]

    def test_step(self, name: str, _index: int) -> None:
        """Measure one of the named risks at the present weights."""
        self.final |= self.gauge.finally_(name, self.best.epoch if self.best else None)
        if {"risk/train", "risk/val"} <= self.final.keys():
            self.final["risk/gap"] = gap(self.final["risk/train"], self.final["risk/val"])

    def on_test_start(self) -> None:
        """Bring the data to the device."""
        self._place_data()

    def _place_data(self) -> None:
        dtype = next(self.model.parameters()).dtype
        for name in self.gauge.splits():
            setattr(self.data, name, getattr(self.data, name).to(self.device, dtype))

    # --- surviving a restart ------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a bit-exact continuation needs.

        Lightning's own loop counters are left out: they count chunks, which follow the clock.
        """
        del checkpoint["loops"]
        checkpoint["truerisk"] = {
            "position": [self.epoch, self.step_in_epoch],
            "step": self.take_step.state_dict(),
            "regularizers": {k: r.state_dict() for k, r in self.recipe.regularizers.items()},
            "rng": self._every_process(rng.get_state()),
            "best": None if self.best is None else self.best._asdict(),
            "stopped": self.trainer.should_stop,
        }

    def _every_process(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        if self.trainer.world_size == 1:
            return [state]
        states: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(states, state)
        return states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up a run where its checkpoint left it; the rest waits for the optimizer."""
        weights = checkpoint["state_dict"].values()
        self.model.to(next(w.dtype for w in weights if w.is_floating_point()))
        self._resumed = saved = checkpoint["truerisk"]
        self.epoch, self.step_in_epoch = saved["position"]
        self.best = None if saved["best"] is None else Best(**saved["best"])
        self.trainer.should_stop = saved["stopped"]
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = self.epoch


class _Engine:
    """Lightning's strategy and precision, as ``Step`` sees them."""

    def __init__(self, module: RiskModule) -> None:
        trainer = module.trainer
        self.scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.world_size = trainer.world_size
        self._strategy = trainer.strategy
        plain = isinstance(trainer.strategy, SingleDeviceStrategy) and self.scaler is None
        self.backward: Callable[..., Any] = Tensor.backward if plain else module.manual_backward

    def sum(self, values: Tensor) -> Tensor:
        return self._strategy.reduce(values.clone(), reduce_op="sum")
