"""The diagnostics of a run as an observer of its loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.diagnostics.diagnostic import Diagnostic
from truerisk.diagnostics.snapshot import RunView, taking_snapshot
from truerisk.engine.loop import Observer, TrainingLoop

if TYPE_CHECKING:
    from truerisk.data.split import Split
    from truerisk.engine.lightning import ModelBackend
    from truerisk.recipe import Recipe


class DiagnosticsRunner:
    """Lets diagnostics look when they are due; those due at one step share a `Snapshot`.

    What trains the run calls, in this order, `on_setup`, `on_run_start`, `before_step` and
    `after_step` around the steps (at least where `steps_until_look` asks for it), and `on_run_end`.
    With several processes each computes the same numbers, and the first logs them.

    Args:
        diagnostics: the diagnostics of the run.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = list(diagnostics)
        self._step_watchers = [d for d in self.diagnostics if _overrides(d, "before")]
        self._last_looks: dict[Diagnostic, int] = {}

    def on_setup(self, recipe: Recipe, sharded: bool = False) -> None:
        """Refuse what cannot work, and show the initial weights to the rest.

        Called before the weights of a checkpoint are loaded, as a resumed run has the same initial
        weights as the one that it continues.

        Args:
            recipe: the parts of the run.
            sharded: whether each process holds a part of the parameters.

        Raises:
            ConfigError: a diagnostic cannot look at such a run.
        """
        for diagnostic in self.diagnostics:
            reason = _find_refusal(diagnostic, recipe, sharded)
            if reason:
                raise ConfigError(f"diagnostics.{diagnostic.name}: {reason}")
            diagnostic.start(recipe.model)

    def on_run_start(self, run: RunView) -> None:
        """Plan the looks, and look at the initial weights unless the run is resumed."""
        self.plan_looks(run)
        if run.step == 0:
            self.after_step(run)

    def plan_looks(self, run: RunView) -> None:
        """Tell the diagnostics the length of the run, which `steps_until_look` needs."""
        for diagnostic in self.diagnostics:
            diagnostic.plan(run.steps_per_epoch, run.horizon)

    @property
    def watches_steps(self) -> bool:
        """Whether a diagnostic looks before a step, too."""
        return bool(self._step_watchers)

    def steps_until_look(self, step: int) -> float:
        """Count the steps from one step to the next look; infinite where none is left."""
        return min((d.until(step) for d in self.diagnostics), default=math.inf)

    def before_step(self, run: RunView) -> None:
        """Show the weights that a step is about to change.

        Called with the step's gradient in ``.grad`` where the optimizer is given one, and not in a
        step that a loss scaler leaves out.
        """
        due = [d for d in self._step_watchers if d.due(run.step + 1)]
        if due:
            with taking_snapshot(run) as snapshot:
                for diagnostic in due:
                    diagnostic.before(snapshot)

    def after_step(self, run: RunView) -> None:
        """Look at the weights that the last step led to, and log what is seen."""
        self._look(run, [d for d in self.diagnostics if d.due(run.step)])

    def on_run_end(self, run: RunView) -> None:
        """Look at the last weights, of a run that stopped early too, and finish."""
        # A diagnostic whose first look is at step 1 compares a step's two ends, which only a step
        # that was known to be due has kept.
        late = [d for d in self.diagnostics if self._last_looks.get(d) != run.step and d.first != 1]
        self._look(run, late)
        self._look(run, [d for d in self.diagnostics if _overrides(d, "finish")], finish=True)

    def _look(self, run: RunView, due: Sequence[Diagnostic], finish: bool = False) -> None:
        """Let diagnostics measure one snapshot, and log their numbers under their names."""
        if not due:
            return
        values: dict[str, float] = {}
        with taking_snapshot(run) as snapshot:
            for diagnostic in due:
                measure = diagnostic.finish if finish else diagnostic.look
                numbers = measure(snapshot)
                values |= {f"{diagnostic.name}/{k}": float(v) for k, v in numbers.items()}
                self._last_looks[diagnostic] = snapshot.step
        if values:
            run.log_values(values)


def _overrides(diagnostic: Diagnostic, hook: str) -> bool:
    return getattr(type(diagnostic), hook) is not getattr(Diagnostic, hook)


def _find_refusal(diagnostic: Diagnostic, recipe: Recipe, sharded: bool) -> str | None:
    """Say why a diagnostic cannot look at a run; None if it can."""
    if sharded:
        return (
            "it looks at whole parameters, and trainer=fsdp gives each process a part of them: "
            "leave it out, or use trainer=ddp"
        )
    misfit = recipe.surrogate.task.refuse_diagnostic(diagnostic)
    if misfit is not None:
        return misfit
    if diagnostic.reads_gradients and (recipe.needs.curvature or not recipe.needs.gradient):
        return "the optimizer leaves no gradient to look at: leave it out, or take another one"
    return diagnostic.refuse(recipe)


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
