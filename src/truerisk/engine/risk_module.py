"""A recipe as a LightningModule, for any Trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.fabric.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import SequentialSampler

from truerisk import engine
from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.data import DataModule, RunData
from truerisk.data.plan import SplitDataset, WeighedPair
from truerisk.engine.callback_rules import refuse_callbacks
from truerisk.engine.host import TrainerHost
from truerisk.engine.measure import mark_samples
from truerisk.engine.state import plain_info
from truerisk.metric import Collector
from truerisk.recipe import Recipe
from truerisk.regularizer import Regularizer
from truerisk.risk.estimate import (
    Marks,
    MeanEstimate,
    Measurement,
    flatten_metrics,
    has_places,
    make_estimate,
)

if TYPE_CHECKING:
    from truerisk.engine.lightning import ModelBackend

SAYS = {
    "gradient_clip_val": "step.clip.norm or step.clip.value",
    "accumulate_grad_batches": "a larger data.batch_size",
}
"""Arguments of a Trainer that its manual optimization has no use for, and what says it here."""

RESTRICTED: Any = type(vars(L.LightningModule)["load_from_checkpoint"])
"""Lightning's kind of class method, which refuses to be called on an instance."""


class RiskModule(L.LightningModule):
    """A recipe's model and loss, trained by our own step and measured under our own names.

    It is fitted, validated, tested and asked for predictions by any ``lightning.Trainer``, on the
    data of its recipe or on dataloaders of pairs (x, y). A batch is a step. `truerisk.build_module`
    makes one of a configuration, ``RiskModule.load_from_checkpoint(path)`` of any checkpoint.

    | logged                                        | when                                        |
    |-----------------------------------------------|---------------------------------------------|
    | ``risk/val``, ``error/val``                   | after a validation loop                     |
    | ``risk/train``, ``risk/gap``, ``objective``,  | then too, where the training data is that   |
    | ``penalty/…``                                 | of a `truerisk.data.DataModule`             |
    | ``batch/loss``, ``grad_norm``, ``lr/…``       | after an epoch                              |
    | ``risk/test``, ``error/test``                 | after ``trainer.test``                      |
    | ``metric/NAME/…``                             | with the risks                              |

    Args:
        recipe: the run's parts; by default those that the configuration describes, their weights
            still to be loaded.
        config: the plain, resolved configuration.
        data: what the model must know of the data, as metadata.json records it; by default the
            configuration's data is loaded to find out.
        hosted: whether a loop of ours stands behind the Trainer, which has loggers told already.

    Raises:
        ConfigError: there is neither a recipe nor a configuration.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        config: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        hosted: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if recipe is not None:
            info = recipe.data.info
        elif config is not None:
            recipe, info = engine.restore_recipe(config, data)
        else:
            raise ConfigError(
                "RiskModule takes a recipe, or the configuration that a checkpoint of truerisk "
                "holds; from overrides: truerisk.build_module([…])"
            )
        if config is not None:
            plain = {"config": dict(config), "data": plain_info(info)}
            self.save_hyperparameters(plain, logger=not hosted)
        # a Trainer asks its own kind of data for dataloaders
        self.own_data = DataModule.from_run(recipe.data)
        if not hosted:
            recipe = replace(recipe, data=self.own_data)
        self.recipe, self.model = recipe, recipe.model
        self.surrogate = recipe.surrogate  # a submodule, so that class weights move along
        self.backend: ModelBackend | None = None
        self.resumed: Mapping[str, Any] | None = None
        self._held = ExitStack()
        # in a dict, as estimates that are submodules would join the checkpoints
        self._estimates: dict[str, Any] = {}
        self._averaged: Mapping[str, Tensor] | None = None
        self._told_plain = self._told_alike = hosted  # a loop of ours knows groups and weights
        self._given_data: RunData = recipe.data
        self._marks: Callable[[Tensor], Marks] | None = None
        self._groups = self._seen = 0
        self._collector = Collector(recipe.metrics, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's outputs [n, …] for inputs [n, …]."""
        return self.model(x)

    # --- before a Trainer begins ----------------------------------------------------------------

    def configure_callbacks(self) -> list[L.Callback]:
        """Refuse what could not work: Lightning asks this before it looks at its own arguments.

        Raises:
            ConfigError: in one line, with what to write instead.
        """
        trainer = self.trainer
        if trainer.state.fn == "fit":
            asked = {
                "gradient_clip_val": trainer.gradient_clip_val is not None,
                "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
            }
            for name in (name for name, given in asked.items() if given):
                raise ConfigError(f"Trainer({name}=…) does not reach our step: use {SAYS[name]}")
            if self.recipe.step.accumulate > 1:
                raise ConfigError(
                    "step.accumulate cuts the batches of truerisk train; under a Trainer of your "
                    "own a batch is a step: leave it out and raise data.batch_size"
                )
            refuse_callbacks(trainer.callbacks)  # type: ignore[attr-defined]
            if unserved := self.list_unserved():
                rank_zero_warn(
                    f"{', '.join(unserved)}: a Trainer of your own goes by its own arguments and "
                    "callbacks, such as EarlyStopping('risk/val') and check_val_every_n_epoch"
                )
        return []

    def list_unserved(self) -> list[str]:
        """List what the configuration asks of our own loop, and no other does."""
        config, epochs = self.hparams.get("config", {}), self.trainer.max_epochs or 0

        def would_act(part: Regularizer) -> bool:
            # the default recipe's patience is longer than most runs
            rules = [rule for rule in part.stop_rules() if getattr(rule, "patience", 0) < epochs]
            return bool(rules or part.callbacks())

        parts = self.recipe.regularizers.items()
        names = [f"regularizer.{name}" for name, part in parts if would_act(part)]
        stop = config.get("stop", {})
        names += [f"stop.{key}" for key, bound in stop.items() if bound is not None]
        names += [f"diagnostics.{name}" for name in config.get("diagnostics", {})]
        return names + ["risk.every"] * (self.recipe.risk.every > 1)

    def setup(self, stage: str) -> None:
        """Take the data that the Trainer was given, if it is of ours."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, RunData):
            data = self.recipe.data
        if stage == "fit":
            data.prepare()
        self._given_data = data
        # a copy, whose splits are brought to the device while dataloaders read where they did
        self.recipe = replace(self.recipe, data=copy.copy(data))

    def train_dataloader(self) -> Any:
        """Return batches of the recipe's own data, where the Trainer was given none."""
        return self.own_data.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return batches of the recipe's own data, where the Trainer was given none."""
        return self.own_data.val_dataloader()

    def test_dataloader(self) -> Any:
        """Return batches of the recipe's own data, where the Trainer was given none."""
        return self.own_data.test_dataloader()

    def predict_dataloader(self) -> Any:
        """Return batches of the recipe's own data, where the Trainer was given none."""
        return self.own_data.predict_dataloader()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer and its schedule, which our step moves.

        Raises:
            ConfigError: the Trainer has no end, several processes, or an unusual precision.
        """
        from truerisk.engine.lightning import ModelBackend
        from truerisk.engine.recorder import Recorder
        from truerisk.run import RunFolder

        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ConfigError("a schedule needs an end: give Trainer(max_epochs=…) or max_steps")
        folder = RunFolder(Path(self.trainer.default_root_dir))
        recorder = Recorder(folder, dict(self.hparams.get("config", {})), [], writes=False)
        host = TrainerHost(self.trainer)
        self.backend = ModelBackend(self.recipe, host, (None, int(steps)), recorder, self)
        if self.resumed is not None:
            self.backend.run.restore({"truerisk": self.resumed, "callbacks": {}})
        return self.backend.run.optimizer

    def on_train_start(self) -> None:
        """Bring the measured data to the device, and go on with a run's random streams."""
        assert self.backend is not None
        if self.resumed is not None:
            self.backend.resumed = {"truerisk": self.resumed}
        self.backend.begin()

    # --- training -------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Begin the sums of an epoch."""
        assert self.backend is not None
        self.backend.run.state.epoch = self.trainer.current_epoch
        self.backend.run.state.sums.clear()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Take one optimizer step on a batch.

        Args:
            batch: inputs [n, …] and targets [n, …].
            batch_idx: its number in the epoch.

        Returns:
            ``loss``: J when the step began, a scalar.

        Raises:
            Diverged: J or ∇J is no longer finite.
        """
        assert self.backend is not None
        pair = self.as_batch(batch)
        if pair.weight is None:
            self._tell_alike()
        with self.counted_step():
            self.backend.step([(pair, 1.0)])
        return {"loss": torch.tensor(self.backend.run.state.sums.objective)}

    def _tell_alike(self) -> None:
        """Tell once that training goes without the weights that the recipe's samples have."""
        own, told = self.own_data, self._told_alike
        self._told_alike = True
        # with data.sampler=weighted they are in the draw already
        if told or "train" not in getattr(own, "weights", {}) or own.sampler == "weighted":
            return
        rank_zero_warn(
            "data.source.weight: of batches that are not those of the module's own data, samples "
            "count alike in training"
        )

    @contextmanager
    def counted_step(self) -> Iterator[None]:
        """Count the step of the block as an optimizer step of the Trainer's."""
        # Lightning counts the calls of its wrapper around the optimizer, whose closure takes no
        # arguments; line searches and second-order methods pass some.
        trainer: Any = self.trainer
        progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        with trainer.profiler.profile("optimizer_step"):
            yield
        progress.increment_completed()

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch's steps, and the learning rates."""
        assert self.backend is not None
        run = self.backend.run
        self.log_values(run.rates() | run.state.sums.means())

    def as_batch(self, batch: Any) -> Batch:
        """Return a pair (x, y) as a `Batch`, floating inputs in the type of the weights.

        Args:
            batch: a pair, with weights or without, or a `Batch`.
        """
        if isinstance(batch, Batch):
            return batch
        x, y = batch
        dtype, weight = next(self.model.parameters()).dtype, None
        if isinstance(batch, WeighedPair):
            weight = batch.weight.to(dtype)
        if x.is_floating_point():
            x = x.to(dtype)
        if y.is_floating_point():
            y = y.to(dtype)
        return Batch(x, y, weight=weight)

    # --- measuring ------------------------------------------------------------------------------

    def hold_weights(self, name: str = "") -> None:
        """Begin to measure the weights that count: an average's, where a regularizer keeps one.

        Args:
            name: of the split that is measured, if one is.
        """
        self._mark_batches(name)
        self._estimates = {}
        self._collector = Collector(self.recipe.metrics, self.surrogate)
        averages = (r.averaged() for r in self.recipe.regularizers.values())
        self._averaged = next((a for a in averages if a is not None), None)
        if self.backend is not None:
            loader = getattr(self.trainer, "train_dataloader", None)
            if loader is not None and not isinstance(
                getattr(loader, "dataset", None), SplitDataset
            ):
                # batch-norm statistics of an average are those of the samples that it trains on
                estimator, device = self.backend.run.estimator, self.device
                estimator.inputs = lambda: (self.as_batch(b).x.to(device) for b in loader)
            self._held.enter_context(self.backend.evaluating())
            self._averaged = self.backend.measured

    def _mark_batches(self, name: str) -> None:
        """Find the groups and weights of the samples that a Trainer is about to show, in order.

        Pairs (x, y) do not tell them; the place of a sample in a split of ours does. Of other
        batches it is told once that they count alike.
        """
        recipe, own = self.recipe, self.own_data
        self._marks, self._groups, self._seen = None, 0, 0
        weighted = recipe.risk.weighted
        grouped = getattr(recipe.data, "groups", None) or getattr(own, "groups", None)
        if not name or not (grouped or weighted):
            return
        if self._shows_split(name):
            self._marks, self._groups = mark_samples(recipe, name)
        # a data module of another recipe may have neither, where this one's has
        lacks = [
            what
            for what in ("groups", "weights")[: 1 + weighted]
            if getattr(own, what, None) and not getattr(recipe.data, what, None)
        ]
        if (self._marks is None or lacks) and not self._told_plain:
            self._told_plain = True
            what = "risk.weighted=true" if weighted else "data.split=group"
            rank_zero_warn(
                f"{what}: of batches that are not those of the module's own data, samples count "
                "alike, and errors are those of independent samples; truerisk evaluate does as it "
                "says"
            )

    def _shows_split(self, name: str) -> bool:
        """Tell whether the Trainer's batches are a split of our data, in its order."""
        loader = getattr(self.trainer, f"{name}_dataloaders", None)
        if isinstance(loader, list | tuple) and len(loader) == 1:
            loader = loader[0]
        dataset, sampler = getattr(loader, "dataset", None), getattr(loader, "sampler", None)
        if self.trainer.world_size > 1 or not isinstance(sampler, SequentialSampler):
            return False
        own = SplitDataset(getattr(self._given_data, name))
        return isinstance(dataset, SplitDataset) and dataset.split is own.split

    def release_weights(self) -> None:
        """End what `hold_weights` began; training goes on as it was."""
        self._held.close()

    def add_batch(self, batch: Any) -> Tensor:
        """Add a batch to the estimates of risk and error.

        Args:
            batch: inputs [n, …] and targets [n, …].

        Returns:
            The mean loss of its samples, a scalar.
        """
        pair, surrogate = self.as_batch(batch), self.surrogate
        outputs = self.predict_outputs(pair.x)
        trained = surrogate(outputs, pair.y)
        losses = surrogate.report_losses(trained, outputs, pair.y)
        mark: tuple[Any, ...] = ()
        if self._marks is not None and self._groups:
            mark = self._marks(torch.arange(self._seen, self._seen + len(pair.y)))
        self._seen += len(pair.y)
        self._collector.add(outputs, pair.y, *mark[:1])
        values: dict[str, Any] = {"risk": losses}
        if has_places(mark):
            values["risk"], values["error"] = surrogate.compute_places(outputs, pair.y)
        elif surrogate.task.error_title is not None:
            values["error"] = surrogate.compute_errors(outputs, pair.y)
        for name, value in values.items():
            if name not in self._estimates:
                self._estimates[name] = make_estimate(self.device, self._groups)
            self._estimates[name].update(value, *mark)
        if losses is not trained:
            self._estimates.setdefault("trained", MeanEstimate(self.device)).update(trained)
        return losses.mean()

    def predict_outputs(self, x: Tensor) -> Tensor:
        """Return outputs [n, …] of the weights that are measured.

        Args:
            x: inputs [n, …].
        """
        if self._averaged is None:
            return self.model(x)
        return torch.func.functional_call(self.model, dict(self._averaged), (x,))

    def read_estimates(self) -> Measurement:
        """Return what the batches since `hold_weights` have shown."""
        trained = self._estimates.get("trained")
        own = None if trained is None else trained.moments.mean
        metrics = self._collector.estimate()
        return Measurement(self._estimates["risk"], self._estimates.get("error"), {}, own, metrics)

    def log_values(self, values: Mapping[str, float]) -> None:
        """Log numbers by name, in double precision."""
        dtype = torch.float64
        if self.device.type == "mps":  # which has none
            dtype = torch.float32
        self.log_dict({k: torch.tensor(v, dtype=dtype) for k, v in values.items()})

    def on_validation_start(self) -> None:
        """Hold the weights still."""
        self.hold_weights("val")

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Measure a batch; returns the mean loss of its samples, a scalar."""
        return self.add_batch(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation risk, and while training the risk on a part of the training set."""
        if not self._estimates:
            return
        val, epoch = self.read_estimates(), self.trainer.current_epoch
        metrics = val.name_risks("val", epoch)
        backend = self.backend
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            assert backend is not None
            if isinstance(getattr(self.trainer, "datamodule", None), RunData):
                estimator = backend.run.estimator
                train = estimator.measure_split("train", backend.measured, estimator.subset)
                metrics = estimator.join_risks(train, val, epoch)
            monitor = self.recipe.monitor
            if monitor in metrics:
                score = self.recipe.orient(monitor, metrics[monitor].value)
                backend.run.schedule.step_epoch(score)
        self.log_values(flatten_metrics(metrics, {}))

    def on_validation_end(self) -> None:
        """Let training go on."""
        self.release_weights()

    def on_test_start(self) -> None:
        """Hold the weights still."""
        self.hold_weights("test")

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Measure a batch; returns the mean loss of its samples, a scalar."""
        return self.add_batch(batch)

    def on_test_epoch_end(self) -> None:
        """Log the risk on the test samples."""
        if self._estimates:
            named = self.read_estimates().name_risks("test", self.trainer.current_epoch)
            self.log_values(flatten_metrics(named, {}))

    def on_test_end(self) -> None:
        """Let the weights go."""
        self.release_weights()

    def on_predict_start(self) -> None:
        """Hold the weights still."""
        self.hold_weights()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the model's outputs [n, …] for a batch, with or without targets."""
        x = batch
        if isinstance(batch, list | tuple):
            x = batch[0]
        return self.predict_outputs(x)

    def on_predict_end(self) -> None:
        """Let the weights go."""
        self.release_weights()

    # --- checkpoints ----------------------------------------------------------------------------

    @RESTRICTED
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """Load a module that a run or a Trainer has saved.

        Args:
            checkpoint_path: a run's ``last.ckpt``, or a file of a ModelCheckpoint's.
            args: as of any LightningModule, as are ``options``.

        Raises:
            ConfigError: the file is none of these.
        """
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **options)
        except KeyError as error:  # what Lightning looks for first is its own version
            if error.args != ("pytorch-lightning_version",):
                raise
            raise ConfigError(
                f"{checkpoint_path} holds no module: give a run's last.ckpt or a file of a "
                "ModelCheckpoint's; best.ckpt is weights alone: truerisk.load_run(FOLDER).model"
            ) from None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what our step needs to go on to the same bits."""
        if self.backend is not None:
            run = self.backend.run
            parts = self.backend.checkpoint_parts([0])[0]
            checkpoint["truerisk"] = run.checkpoint(parts)["truerisk"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what `on_save_checkpoint` added, averages of the weights among it."""
        self.resumed = checkpoint.get("truerisk")
        if self.resumed is not None:
            for name, state in self.resumed["regularizers"].items():
                self.recipe.regularizers[name].load_state_dict(state)
