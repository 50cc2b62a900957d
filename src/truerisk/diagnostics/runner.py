"""What lets the diagnostics of a run look at it when they are due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from truerisk.core.errors import ConfigError
from truerisk.diagnostics.diagnostic import Diagnostic
from truerisk.diagnostics.snapshot import RunView, taking_snapshot

if TYPE_CHECKING:
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
