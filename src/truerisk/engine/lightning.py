"""The backend of one model: Fabric's processes, autograd's gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core import rng, shards
from truerisk.core.deterministic import eval_mode, moving_norms, needs_settling
from truerisk.core.errors import Diverged
from truerisk.data.plan import STEPS_AT_ONCE
from truerisk.engine import nonfinite
from truerisk.engine.host import Host
from truerisk.engine.measure import RiskEstimator, split_names
from truerisk.engine.recorder import Recorder
from truerisk.engine.several_looks import make_step
from truerisk.engine.state import CheckpointParts, TrainingRun
from truerisk.engine.step import MicroBatches
from truerisk.objective import Objective
from truerisk.recipe import Recipe
from truerisk.risk.measured import Measured

State = Mapping[str, Tensor] | None
DEFAULT_EPOCHS = 1000
"""The length of a run that is given none, as in ``lightning.Trainer``."""


class ModelBackend:
    """Train and measure one model.

    Args:
        recipe: the run's parts.
        host: the processes, the device and the precision.
        limits: the largest number of epochs and of steps; -1 or None where there is none.
        recorder: what writes the run's folder.
        module: model and loss as a LightningModule, where a Trainer stands around the loop.

    Attributes:
        runs: the run, until it has ended.
        step: the update step.
        objective: J, as it is measured and looked at.
    """

    def __init__(
        self,
        recipe: Recipe,
        host: Host,
        limits: tuple[int | None, int],
        recorder: Recorder,
        module: nn.Module | None = None,
    ) -> None:
        # the same names in checkpoints either way
        parts = {"model": recipe.model, "surrogate": recipe.surrogate}
        self.module = nn.ModuleDict(parts) if module is None else module
        self.recipe, self.host = recipe, host
        self.data, self.model = recipe.data, recipe.model
        penalties = recipe.hooks("penalty")
        if host.shards:
            for hook in ("penalty", "project", "average"):
                shards.refuse(recipe.hooks(hook))
        plan = recipe.plan(host.rank, host.world_size)
        horizon = count_steps(plan.steps_per_epoch, *limits)
        for regularizer in recipe.regularizers.values():
            regularizer.start(horizon, plan.steps_per_epoch)
        forward = host.set_up_model(recipe.model)
        recipe.surrogate.to(host.device, host.place.dtype)
        self.objective = Objective(recipe.model, recipe.surrogate, penalties)
        training = self.objective
        if forward is not recipe.model and not recipe.needs.curvature:
            # Processes average gradients in backward passes of their wrapper alone; measuring, for
            # which they may take unlike numbers of batches, must not wait for one another there.
            training = Objective(recipe.model, recipe.surrogate, penalties, forward)
        # after the model is on its device: FSDP replaces the parameters by its own
        optimizer = recipe.optimizer(recipe.model)
        if host.shards:
            shards.prepare_optimizer(optimizer)
        schedule = recipe.schedule(optimizer, horizon)
        estimator = RiskEstimator(recipe, self.objective, host)
        run = TrainingRun(
            recipe, plan, horizon, limits[0], optimizer, schedule, estimator, [], recorder
        )
        self.run, self.runs = run, [run]
        self.step = make_step(recipe, training, optimizer, schedule, host, run.state)
        self.resumed: Mapping[str, Any] | None = None
        self.measured: State = None

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up a run where its checkpoint left it."""
        self.resumed = checkpoint
        weights = checkpoint["state_dict"]
        if self.host.shards:
            shards.load_whole_module(self.module, self.run.optimizer, checkpoint)
        else:
            self.module.load_state_dict(weights)
            self.run.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        if self.host.scaler is not None and "MixedPrecision" in checkpoint:
            self.host.scaler.load_state_dict(checkpoint["MixedPrecision"])
        self.run.restore(checkpoint)

    def begin(self) -> None:
        """Bring the data to the device, and go on with a run's random streams."""
        place_data(self.recipe, self.host)
        if not self.model.training:  # else modules that were put into eval mode stay there
            self.model.train()
        self.set_mode(training=True)
        if self.resumed is not None:
            rng.set_state(self.resumed["truerisk"]["rng"][self.host.rank])

    # --- training -----------------------------------------------------------------------------

    def rest_of_epoch(self) -> Iterator[MicroBatches]:
        """Yield the micro-batches of each step that is left of the epoch, and of the run."""
        state, plan = self.run.state, self.run.plan
        left = min(plan.steps_per_epoch - state.step_in_epoch, self.run.horizon - state.step)
        steps = islice(plan.epoch(state.epoch, state.step_in_epoch), left)
        # Many steps' indices at once: where samples are read as they are needed, the workers of a
        # loader fetch ahead.
        while some := list(islice(steps, STEPS_AT_ONCE)):
            batches = self.data.train.batches([index for step in some for index, _ in step])
            for step in some:
                parts = [(next(batches), share) for _, share in step]
                yield parts
                # Whoever steps still has the list: the next batch is read into their memory, which
                # is in the cache.
                parts.clear()

    def take_step(self, batch: MicroBatches) -> Mapping[int, Diverged]:
        """Take a step; tell why if it diverges."""
        try:
            self.step(batch)
        except Diverged as error:
            return {0: error}
        self.run.state.step_in_epoch += 1
        return {}

    def set_mode(self, training: bool) -> None:
        """Set the mode of an optimizer whose weights differ between the two."""
        if self.recipe.needs.train_eval_modes:
            optimizer: Any = self.run.optimizer
            if training:
                optimizer.train()
            else:
                optimizer.eval()

    # --- measuring ----------------------------------------------------------------------------

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the weights that count still, in eval mode; training then goes on as it was."""
        # There and back again rounds: such an optimizer's weights are put back as they were.
        moved = self.step.params if self.recipe.needs.train_eval_modes else []
        before = [p.detach().clone() for p in moved]
        self.set_mode(training=False)
        self.host.agree_on_buffers(self.model)
        with self.host.place.autocast():
            self.measured = self.standing_weights()
            with eval_mode(self.model):
                yield
        self.set_mode(training=True)
        with torch.no_grad():
            for p, old in zip(moved, before, strict=True):
                p.copy_(old)

    def standing_weights(self) -> State:
        """Gather what is measured in place of the model's own weights and buffers, if anything."""
        regularizers = self.recipe.regularizers.values()
        averager = next((r for r in regularizers if r.averaged() is not None), None)
        if averager is not None:
            average = averager.averaged()
            assert average is not None
            return self.run.estimator.settle_state(average, averager.refresh_statistics)
        # its running statistics are those of the weights it trains at
        if self.host.shards:  # a shard of a weight has no singular vectors
            return None
        moved = self.recipe.needs.train_eval_modes and bool(
            moving_norms(self.model, self.run.estimator.frozen)
        )
        if moved or needs_settling(self.model):
            return self.run.estimator.settle_state({}, refresh=moved)
        return None

    def epoch_risks(self, rows: Sequence[int]) -> list[dict[str, Measured]]:
        """Measure the run after an epoch."""
        self.step.share_sums()
        return [self.run.estimator.epoch_risks(self.measured, self.run.state.epoch) for _ in rows]

    def copy_weights(self, row: int) -> dict[str, Tensor]:
        """Copy the weights and buffers that were measured."""
        # Only where there are shards: putting them together takes as long as a small model's epoch.
        weights = self.model.state_dict()
        if self.host.shards:
            weights = shards.whole_state(self.model)
        weights |= dict(self.measured or {})
        return {name: tensor.detach().clone() for name, tensor in weights.items()}

    def final_risks(self, rows: Sequence[int]) -> list[dict[str, Measured]]:
        """Measure the best weights on what the end of a run takes; the model then holds them."""
        risks = []
        for _ in rows:
            assert self.run.state.best is not None
            if self.host.shards:
                shards.load_whole_state(self.model, self.run.state.best.state)
            else:
                self.model.load_state_dict(self.run.state.best.state)
            self.model.eval()
            with self.host.place.autocast():
                risks.append(self.run.estimator.final_risks(self.run.state.best.epoch))
        return risks

    def explain_divergence(self, row: int) -> Diverged:
        """Say what is no longer finite where the validation risk is not."""
        bad = nonfinite.first_bad_weight(self.model) or self.recipe.surrogate.val_title
        return Diverged(self.run.state.step, bad)

    # --- checkpoints --------------------------------------------------------------------------

    def checkpoint_parts(self, rows: Sequence[int]) -> list[CheckpointParts]:
        """Return what a checkpoint needs beside the run's state; all processes take part."""
        self.step.share_sums()
        weights: dict[str, Tensor] = self.module.state_dict()
        optimizer = self.run.optimizer.state_dict()
        if self.host.shards:
            weights, optimizer = shards.whole_module(self.module, self.run.optimizer)
        more = {}
        if self.host.scaler is not None:
            more["MixedPrecision"] = self.host.scaler.state_dict()
        streams = self.host.gather(rng.get_state())
        return [CheckpointParts(weights, optimizer, streams, more) for _ in rows]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""
        self.runs = [self.runs[k] for k in rows]


def count_steps(steps_per_epoch: int, epochs: int | None, steps: int) -> int:
    """Count the optimizer steps of a run.

    Args:
        steps_per_epoch: optimizer steps in one pass through the data.
        epochs: the largest number of passes; None or negative where there is none.
        steps: the largest number of steps; negative where there is none.
    """
    limits = [] if steps < 0 else [steps]
    if epochs is not None and epochs >= 0:
        limits.append(epochs * steps_per_epoch)
    return min(limits, default=DEFAULT_EPOCHS * steps_per_epoch)


def place_data(recipe: Recipe, host: Host) -> None:
    """Bring the splits to the device, floating numbers in the type of the weights."""
    for name in split_names(recipe.data):
        split = getattr(recipe.data, name).to(host.device, host.place.dtype)
        setattr(recipe.data, name, split)


def evaluate_model(recipe: Recipe, host: Host, epoch: int | None) -> dict[str, Measured]:
    """Measure a model's weights on all the samples that its data has.

    Args:
        recipe: the run's parts, the model with its weights.
        host: the processes, the device and the precision.
        epoch: after which epoch the weights were reached.

    Returns:
        Risks by name.
    """
    host.set_up_model(recipe.model)
    recipe.surrogate.to(host.device, host.place.dtype)
    place_data(recipe, host)
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    recipe.model.eval()
    with host.place.default_dtype(), host.place.autocast():
        return RiskEstimator(recipe, objective, host).final_risks(epoch)
