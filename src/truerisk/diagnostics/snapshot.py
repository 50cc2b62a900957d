"""What diagnostics may use of a run, and a look at it that leaves no trace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.objective import (
    DenseOperator,
    HessianOperator,
    LocalObjective,
    SymmetricOperator,
    ValueAndGradient,
    value_and_gradient,
)

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from truerisk.data.split import Split
    from truerisk.objective import Objective
    from truerisk.recipe import Recipe

SMALL = 256
"""Weights up to which the Hessian is written out, so that nothing about it is estimated."""


class RunView(Protocol):
    """All that diagnostics use of a run; what trains a run hands one to `DiagnosticsRunner`.

    The gradient of the last step is read from ``.grad`` of the parameters, seeds and batch edits
    from the recipe, and the model is the objective's.
    """

    @property
    def recipe(self) -> Recipe:
        """The parts of the run: data, factories of optimizer and schedule, seeds, batch edits."""

    @property
    def objective(self) -> Objective:
        """J as a pure function; its ``model`` is the one that is trained."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, with its groups and state."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The trainable parameters, by name."""

    @property
    def loss_scaler(self) -> torch.amp.GradScaler | None:
        """The scaler of the loss under float16; None without one."""

    @property
    def precision(self) -> str:
        """The setting ``trainer.precision``."""

    @property
    def train_split(self) -> Split:
        """The training set, on the device of the model."""

    @property
    def measured_index(self) -> Tensor:
        """The samples of the training set on which risks are measured after an epoch, int64 [n]."""

    @property
    def step(self) -> int:
        """Optimizer steps taken."""

    @property
    def epoch(self) -> int:
        """Epochs begun: 0 at the initial weights, 1 from the first step on."""

    @property
    def horizon(self) -> int:
        """Optimizer steps of the whole run."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""

    @property
    def step_size(self) -> int:
        """Samples of one optimizer step, over micro-batches and processes."""

    @property
    def folder(self) -> Path:
        """Where the run is written."""

    @property
    def is_first_process(self) -> bool:
        """Whether this process writes what all of them compute alike."""

    def forward_context(self) -> AbstractContextManager[None]:
        """Return the context in which the run's precision holds in a forward pass."""

    def agree_on_buffers(self) -> None:
        """Give every process the first one's running statistics."""

    def log_values(self, values: Mapping[str, float]) -> None:
        """Log numbers by name, at the present step and epoch."""


class Snapshot:
    """A run at one step: its model in eval mode, and what several diagnostics compute only once.

    The weights are those that training moves, not an average of them. Derivatives are those of J in
    eval mode on the fixed part of the training set that risks are measured on.

    Args:
        run: the run that is looked at.
        gradients: what the last step left in ``.grad``, by the name of the parameter.
        frozen: modules that are in eval mode while the run trains, by name.
    """

    def __init__(
        self, run: RunView, gradients: dict[str, Tensor], frozen: Collection[str] = ()
    ) -> None:
        self.run, self.gradients, self.frozen = run, gradients, frozen
        self.step = run.step

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.run.objective.model

    @property
    def objective(self) -> Objective:
        """J as a pure function."""
        return self.run.objective

    @property
    def params(self) -> Mapping[str, Tensor]:
        """The trainable parameters, by name."""
        return self.run.parameters

    @property
    def block_size(self) -> int:
        """How many samples at most go through the model at once."""
        recipe = self.run.recipe
        return recipe.surrogate.task.block_size(recipe.data.info.input_shape)

    def batches(self, size: int | None = None, most: int | None = None) -> Iterator[Batch]:
        """Cut the measured part of the training set into batches.

        Args:
            size: samples of a batch, if no more than `block_size`, which is the default.
            most: samples in all, from the first on; None for every one.

        Returns:
            The batches, the last of which may be smaller.
        """
        index, block = self.run.measured_index[:most], self.block_size
        return self.run.train_split.batches(index.split(min(size or block, block)))

    def forward_samples(self, samples: int, hooks: Iterable[RemovableHandle]) -> None:
        """Take some samples through the model in the run's precision, then remove the hooks.

        Args:
            samples: how many of the measured part of the training set.
            hooks: of layers of the model, which see the forward pass.
        """
        with ExitStack() as stack:
            for hook in hooks:
                stack.callback(hook.remove)
            with self.run.forward_context(), torch.no_grad():
                for batch in self.batches(most=samples):
                    self.model(batch.x)

    @cached_property
    def local_objective(self) -> LocalObjective:
        """J around the present weights."""
        if len(self.run.measured_index) <= self.block_size:
            return LocalObjective(self.objective, None, list(self.batches()))
        return LocalObjective(self.objective, None, self.batches)

    @cached_property
    def value_and_gradient(self) -> ValueAndGradient:
        """J and its gradient at the present weights."""
        return value_and_gradient(self.local_objective)

    @cached_property
    def hessian(self) -> SymmetricOperator:
        """∇²J at the present weights, written out where it is small."""
        h = HessianOperator(self.local_objective)
        return DenseOperator(h.dense()) if h.size <= SMALL else h

    @contextmanager
    def in_training_mode(self) -> Iterator[Snapshot]:
        """Look at J as training sees it: batch norm by the batch, and dropout's masks, held still.

        Layers that are frozen in eval mode stay there. Afterwards all of the model is in eval mode.

        Yields:
            The same step, of which nothing is computed yet.
        """
        try:
            for name, module in self.model.named_modules():
                # not `train()`, which would reach layers that a run holds in eval mode
                module.training = name not in self.frozen
            yield Snapshot(self.run, self.gradients, self.frozen)
        finally:
            self.model.eval()

    @cached_property
    def is_finite(self) -> bool:
        """Whether J, its gradient and a product with its Hessian are, in a run that may diverge."""
        value, gradient = self.value_and_gradient
        parts = (value, gradient, self.hessian @ gradient)
        return all(bool(part.isfinite().all()) for part in parts)


@contextmanager
def taking_snapshot(run: RunView) -> Iterator[Snapshot]:
    """Hold a run still for a look, after which it goes on as if there had been none.

    Inside, the model is in eval mode, ``.grad`` is empty, autocast is off, and the global random
    generators may be used. Afterwards modes, gradients, buffers and generators are as before.

    Args:
        run: the run that is looked at.

    Yields:
        The run at its present step.
    """
    model = run.objective.model
    device = next(model.parameters()).device
    training = [m for m in model.modules() if m.training]
    frozen = [name for name, m in model.named_modules() if not m.training]
    buffers = [(b, b._version, b.clone()) for b in model.buffers()]
    named = dict(model.named_parameters())
    gradients = {name: p.grad for name, p in named.items()}
    with ExitStack() as stack:
        stack.enter_context(rng.fork_state())
        # The run's context sets the default type, too, which is wanted; its autocast is not, as
        # derivatives are taken in the precision of the weights.
        stack.enter_context(run.forward_context())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        try:
            model.eval()
            run.agree_on_buffers()
            for p in named.values():
                p.grad = None
            given = {n: g for n, g in gradients.items() if g is not None}
            yield Snapshot(run, given, frozen)
        finally:
            for name, p in named.items():
                p.grad = gradients[name]
            for m in training:  # not `train()`, which would reach layers that were in eval mode
                m.training = True
            with torch.no_grad():
                for buffer, version, old in buffers:
                    if buffer._version != version:  # a copy would spoil a graph yet to be used
                        buffer.copy_(old)
