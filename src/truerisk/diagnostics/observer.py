"""The diagnostics of a run as an observer of its loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.diagnostics.diagnostic import Diagnostic
from truerisk.diagnostics.runner import DiagnosticsRunner
from truerisk.engine.loop import Observer, TrainingLoop

if TYPE_CHECKING:
    from truerisk.data.split import Split
    from truerisk.engine.lightning import ModelBackend


class DiagnosticsObserver(Observer):
    """Drives a `DiagnosticsRunner` by the hooks of a loop.

    Args:
        runner: what looks at the run.
        backend: the run's model, at its initial weights.
    """

    def __init__(self, runner: DiagnosticsRunner, backend: ModelBackend) -> None:
        self.runner, self.run = runner, BackendView(backend)
        runner.on_setup(backend.recipe, backend.host.shards)

    def on_start(self, loop: TrainingLoop) -> None:
        """Plan the looks, and look at the initial weights."""
        if self.runner.watches_steps:
            hook = self.run.optimizer.register_step_pre_hook
            hook(lambda *_: self.runner.before_step(self.run))
        self.runner.on_run_start(self.run)

    def on_step(self, loop: TrainingLoop) -> None:
        """Look at the weights that the last step led to."""
        self.runner.after_step(self.run)

    def on_end(self, loop: TrainingLoop) -> None:
        """Look at the last weights."""
        self.runner.on_run_end(self.run)


class BackendView:
    """A run of `ModelBackend`, as diagnostics see it (`RunView`).

    Args:
        backend: the run's model.
    """

    def __init__(self, backend: ModelBackend) -> None:
        self._backend, run, host = backend, backend.run, backend.host
        self.recipe, self.objective = backend.recipe, backend.objective
        self.optimizer: torch.optim.Optimizer = run.optimizer
        self.parameters: Mapping[str, Tensor] = backend.step.named
        self.loss_scaler: torch.amp.GradScaler | None = host.scaler
        self.precision = host.place.precision
        self.horizon, self.steps_per_epoch = run.horizon, run.plan.steps_per_epoch
        self.step_size = run.plan.step_size
        self.folder = run.recorder.run.path
        self.is_first_process = host.rank == 0

    @property
    def train_split(self) -> Split:
        """The training set, on the device of the model."""
        return self._backend.data.train

    @property
    def measured_index(self) -> Tensor:
        """The samples of the training set on which risks are measured after an epoch."""
        return self._backend.run.estimator.subset

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self._backend.run.state.step

    @property
    def epoch(self) -> int:
        """Epochs begun."""
        state = self._backend.run.state
        return state.epoch + (state.step_in_epoch > 0)

    def forward_context(self) -> AbstractContextManager[None]:
        """Return the context of the run's precision."""
        return self._backend.host.place.autocast()

    def agree_on_buffers(self) -> None:
        """Give every process the first one's running statistics."""
        self._backend.host.agree_on_buffers(self._backend.model)

    def log_values(self, values: Mapping[str, float]) -> None:
        """Log numbers by name, at the present step and epoch."""
        self._backend.run.log(values, self.epoch)


def make_observers(built: Mapping[str, Any], backend: ModelBackend) -> list[Observer]:
    """Make one observer for all the diagnostics that ``diagnostics`` names.

    Args:
        built: diagnostics and Lightning callbacks, by their names in the configuration.
        backend: the run's model, at its initial weights.

    Raises:
        ConfigError: a diagnostic cannot look at such a run.
    """
    diagnostics = [d for d in built.values() if isinstance(d, Diagnostic)]
    if not diagnostics:
        return []
    return [DiagnosticsObserver(DiagnosticsRunner(diagnostics), backend)]
