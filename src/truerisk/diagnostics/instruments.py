"""The diagnostics of a run as one Lightning callback."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy

from truerisk.core.errors import ConfigError
from truerisk.diagnostics.diagnostic import Diagnostic
from truerisk.diagnostics.moment import moment

if TYPE_CHECKING:
    from truerisk.engine.lightning import RiskModule
    from truerisk.recipe import Recipe


class Instruments(Callback):
    """Lets diagnostics look when they are due; those due at one step share a `Moment`.

    With several processes each computes the same numbers, and the first logs them.

    Raises:
        ConfigError: a diagnostic cannot look at such a run; before anything is trained.
    """

    def __init__(self, diagnostics: Mapping[str, Diagnostic]) -> None:
        self.diagnostics = list(diagnostics.values())
        self._looked: dict[Diagnostic, int] = {}

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Refuse what cannot work, and show the initial weights to the rest."""
        if stage != "fit":
            return
        for diagnostic in self.diagnostics:
            why = _refusal(diagnostic, trainer, pl_module.recipe)
            if why:
                raise ConfigError(f"diagnostics.{diagnostic.name}: {why}")
            diagnostic.start(pl_module.model)

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Plan the looks, now that the length of the run is known."""
        for diagnostic in self.diagnostics:
            diagnostic.plan(pl_module.plan.steps_per_epoch, pl_module.horizon)
        pairs = [d for d in self.diagnostics if type(d).before is not Diagnostic.before]

        def before(*_: Any) -> None:
            step = pl_module.take_step.count + 1
            due = [d for d in pairs if d.due(step)]
            if due:
                with moment(pl_module) as now:
                    for diagnostic in due:
                        diagnostic.before(now)

        if pairs:
            pl_module.take_step.optimizer.register_step_pre_hook(before)

    def until(self, count: int) -> float:
        """Steps until one of them wants to look."""
        return min((d.until(count) for d in self.diagnostics), default=math.inf)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look at the initial weights."""
        if pl_module.take_step.count == 0:
            self._look(pl_module, [d for d in self.diagnostics if d.due(0)])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Look at where the last step has led to."""
        step = pl_module.take_step.count
        self._look(pl_module, [d for d in self.diagnostics if d.due(step)])

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look at the last weights, where a run stopped before its time."""
        step = pl_module.take_step.count
        late = [d for d in self.diagnostics if self._looked.get(d) != step and d.first != 1]
        self._look(pl_module, late)
        last = [d for d in self.diagnostics if type(d).finish is not Diagnostic.finish]
        self._look(pl_module, last, finish=True)

    def _look(self, module: RiskModule, due: Sequence[Diagnostic], finish: bool = False) -> None:
        if not due:
            return
        values: dict[str, float] = {}
        with moment(module) as now:
            for diagnostic in due:
                found = diagnostic.finish(now) if finish else diagnostic.look(now)
                values |= {f"{diagnostic.name}/{k}": float(v) for k, v in found.items()}
                self._looked[diagnostic] = now.step
        if values:
            module.log_values(values, module.epoch + (module.step_in_epoch > 0))


def _refusal(diagnostic: Diagnostic, trainer: L.Trainer, recipe: Recipe) -> str | None:
    if isinstance(trainer.strategy, ModelParallelStrategy):
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


def instruments(built: Mapping[str, Any]) -> list[Callback]:
    """The callbacks for what ``diagnostics`` names: ours as one, and other Lightning callbacks."""
    ours = {name: d for name, d in built.items() if isinstance(d, Diagnostic)}
    others = [callback for callback in built.values() if not isinstance(callback, Diagnostic)]
    return [*([Instruments(ours)] if ours else []), *others]
