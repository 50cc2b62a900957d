"""A run that trains as a row of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from truerisk.core import rng
from truerisk.core.deterministic import tied_names
from truerisk.data.token_rows import TokenSplit
from truerisk.engine.host import Host
from truerisk.engine.lightning import count_steps, place_data
from truerisk.engine.measure import RiskEstimator, split_names
from truerisk.engine.recorder import Recorder
from truerisk.engine.state import CheckpointParts, TrainingRun
from truerisk.objective import Objective
from truerisk.recipe import Recipe


@dataclass(eq=False)
class StackedRun(TrainingRun):
    """The parts of a run whose weights and optimizer's tensors are rows of a stack.

    Everything else a step needs of it is here: the optimizer's groups hold its numbers, its
    schedule moves them, and its rules decide when it stops.

    Attributes:
        optimizer_target: the ``_target_`` of its optimizer, by which the stack finds an update.
        data_key: the same for runs with the same data.
        schedule_key: the same for runs whose schedules move alike.
        noise: the state of torch's generator at the run's own place in its stream of noise.
        dropout: the state of its stream of dropout masks, once it has one.
    """

    optimizer_target: str = ""
    data_key: str = ""
    schedule_key: str = ""
    noise: Tensor = field(default_factory=lambda: torch.get_rng_state())
    dropout: dict[str, Any] | None = None

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups, with the numbers of the step to come."""
        return self.schedule.optimizer.param_groups

    @property
    def shape(self) -> tuple[Any, ...]:
        """The same for runs of one stack: sizes of the data, and where they stand."""
        splits = split_names(self.recipe.data)
        sizes = [len(getattr(self.recipe.data, name)) for name in splits]
        where = self.state.epoch, self.state.step_in_epoch, self.state.step, self.horizon
        # of several target columns the units are no numbers that stack
        surrogate = self.recipe.surrogate
        units = tuple(surrogate.units.tolist()) if hasattr(surrogate, "units") else ()
        if surrogate.class_weight is not None:
            units += tuple(surrogate.class_weight.tolist())
        # tokens of a file are read out of the one source that all members have
        mapped = isinstance(self.recipe.data.train, TokenSplit)
        source = [self.data_key] if mapped else []
        return (*sizes, *splits, *self.recipe.data.info[:3], *units, *where, *source)

    def weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, each tie under its first."""
        model = self.recipe.model
        named, ties = model.state_dict(keep_vars=True), tied_names(model)
        return {name: tensor for name, tensor in named.items() if name not in ties}

    @contextmanager
    def drawing_noise(self) -> Iterator[None]:
        """Draw from the run's own stream of noise inside the block."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.noise)
        try:
            yield
        finally:
            self.noise = torch.get_rng_state()
            torch.set_rng_state(before)

    def parts(self) -> CheckpointParts:
        """Return what a checkpoint needs beside the state; rows must have been brought back."""
        parts = {"model": self.recipe.model, "surrogate": self.recipe.surrogate}
        weights = {f"{p}.{k}": t for p, m in parts.items() for k, t in m.state_dict().items()}
        with rng.fork_seeded(self.recipe.streams.noise):
            streams = {**rng.get_state(), "torch": self.noise}
        # "masks" is the first version's name of the stream, whose checkpoints are still read.
        return CheckpointParts(
            weights, self.optimizer.state_dict(), [streams], own={"masks": self.dropout}
        )

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up a run where its checkpoint left it."""
        weights = checkpoint["state_dict"].items()
        own = {k.removeprefix("model."): t for k, t in weights if k.startswith("model.")}
        self.recipe.model.load_state_dict(own)
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        saved = checkpoint["truerisk"]
        self.noise, self.dropout = saved["rng"][0]["torch"], saved.get("masks")
        super().restore(checkpoint)


def make_stacked_run(
    recipe: Recipe,
    host: Host,
    limits: tuple[int | None, int],
    recorder: Recorder,
    keys: tuple[str, str, str],
) -> StackedRun:
    """Make the parts of a run that will be a row of a stack.

    Args:
        recipe: data, model, loss, regularizers and options.
        host: the device and the precision.
        limits: the largest number of epochs and of steps; -1 or None where there is none.
        recorder: what writes the run's folder.
        keys: see `StackedRun`: of the optimizer, the data, and the schedule.

    Returns:
        The run at its start, without rules.
    """
    recipe.model.to(host.device, host.place.dtype)
    recipe.surrogate.to(host.device, host.place.dtype)
    place_data(recipe, host)
    plan = recipe.plan()
    horizon = count_steps(plan.steps_per_epoch, *limits)
    for regularizer in recipe.regularizers.values():
        regularizer.start(horizon, plan.steps_per_epoch)
    optimizer = recipe.optimizer(recipe.model)
    schedule = recipe.schedule(optimizer, horizon)
    objective = Objective(recipe.model, recipe.surrogate, recipe.hooks("penalty"))
    noise = torch.Generator().manual_seed(recipe.streams.noise).get_state()
    return StackedRun(
        recipe,
        plan,
        horizon,
        limits[0],
        optimizer,
        schedule,
        RiskEstimator(recipe, objective, host),
        [],
        recorder,
        optimizer_target=keys[0],
        data_key=keys[1],
        schedule_key=keys[2],
        noise=noise,
    )


def share_schedules(runs: Sequence[StackedRun]) -> None:
    """Give runs whose schedules move alike one schedule between them.

    Moving hundreds of torch's schedules takes longer than a step. One that follows a run's own
    validation risk stays its own.
    """
    leaders: dict[str, StackedRun] = {}
    for run in runs:
        if not isinstance(run.schedule.target, ReduceLROnPlateau):
            run.schedule = leaders.setdefault(run.schedule_key, run).schedule


def advance_schedules(runs: Sequence[StackedRun]) -> bool:
    """Move every schedule to the next step, and tell whether any number has changed."""
    changed = False
    for schedule in {id(run.schedule): run.schedule for run in runs}.values():
        before = moved_numbers(schedule.optimizer)
        schedule.step()
        changed = changed or moved_numbers(schedule.optimizer) != before
    return changed


def moved_numbers(optimizer: torch.optim.Optimizer) -> list[tuple[Any, ...]]:
    """Return the numbers of each group that schedules move."""
    names = ("lr", "momentum", "betas")
    return [tuple(group.get(name) for name in names) for group in optimizer.param_groups]
