"""The diagnostics of a run under a Lightning trainer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from truerisk.diagnostics.diagnostic import Diagnostic
from truerisk.diagnostics.runner import DiagnosticsRunner

if TYPE_CHECKING:
    from truerisk.data.split import Split
    from truerisk.engine.lightning import RiskModule


class DiagnosticsCallback(Callback):
    """Drives a `DiagnosticsRunner` by the hooks of a trainer.

    Args:
        runner: what looks at the run.
    """

    def __init__(self, runner: DiagnosticsRunner) -> None:
        self.runner = runner
        self.until = runner.steps_until_look  # RiskModule asks callbacks that have an ``until``

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Refuse what cannot work, and show the initial weights to the rest."""
        if stage == "fit":
            sharded = isinstance(trainer.strategy, ModelParallelStrategy)
            self.runner.on_setup(pl_module.recipe, sharded)

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Plan the looks, and watch the optimizer where a diagnostic looks before a step."""
        run = self.run = ModuleView(pl_module)
        # Lightning fetches the first chunk, whose end is the next look, before `on_train_start`.
        self.runner.plan_looks(run)
        if self.runner.watches_steps:
            run.optimizer.register_step_pre_hook(lambda *_: self.runner.before_step(run))

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look at the initial weights."""
        self.runner.on_run_start(self.run)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Look at the weights that the last step led to."""
        self.runner.after_step(self.run)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look at the last weights."""
        self.runner.on_run_end(self.run)


class ModuleView:
    """A run of `RiskModule`, as diagnostics see it (`RunView`).

    Args:
        module: the module that is trained.
    """

    def __init__(self, module: RiskModule) -> None:
        self._module, self._trainer = module, module.trainer
        self.recipe, self.objective = module.recipe, module.objective
        self.optimizer: torch.optim.Optimizer = module.take_step.optimizer
        self.parameters: Mapping[str, Tensor] = module.take_step.named
        self.loss_scaler: torch.amp.GradScaler | None = module.take_step.engine.scaler
        self.precision = str(module.trainer.precision)
        self.horizon, self.steps_per_epoch = module.horizon, module.plan.steps_per_epoch
        self.step_size = module.plan.step_size
        self.folder = Path(module.trainer.default_root_dir)
        self.is_first_process: bool = module.trainer.is_global_zero

    @property
    def train_split(self) -> Split:
        """The training set, on the device of the model."""
        return self._module.data.train

    @property
    def measured_index(self) -> Tensor:
        """The samples of the training set on which risks are measured after an epoch."""
        return self._module.gauge.subset

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self._module.take_step.count

    @property
    def epoch(self) -> int:
        """Epochs begun."""
        return self._module.epoch + (self._module.step_in_epoch > 0)

    def forward_context(self) -> AbstractContextManager[None]:
        """Return the context of the trainer's precision."""
        return self._trainer.precision_plugin.forward_context()

    def agree_on_buffers(self) -> None:
        """Give every process the first one's running statistics."""
        self._module.agree_on_buffers()

    def log_values(self, values: Mapping[str, float]) -> None:
        """Log numbers by name, at the present step and epoch."""
        self._module.log_values(dict(values), self.epoch)


def build_callbacks(built: Mapping[str, Any]) -> list[Callback]:
    """Turn what ``diagnostics`` names into callbacks of a trainer.

    Args:
        built: diagnostics and Lightning callbacks, by their names in the configuration.

    Returns:
        One callback for all the diagnostics, and the others as they are.
    """
    diagnostics = [d for d in built.values() if isinstance(d, Diagnostic)]
    others = [callback for callback in built.values() if not isinstance(callback, Diagnostic)]
    if not diagnostics:
        return others
    return [DiagnosticsCallback(DiagnosticsRunner(diagnostics)), *others]
