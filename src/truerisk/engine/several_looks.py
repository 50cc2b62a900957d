"""Steps of optimizers that look at J more than once, or at more than its gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from truerisk.core import rng
from truerisk.core.deterministic import still_statistics
from truerisk.core.errors import ConfigError, Diverged
from truerisk.engine import nonfinite
from truerisk.engine.host import Host
from truerisk.engine.state import RunState
from truerisk.engine.step import MicroBatches, Step, StepExtras
from truerisk.objective import Objective
from truerisk.objective.step_objective import StepObjective
from truerisk.optimizer import Needs
from truerisk.recipe import Recipe
from truerisk.scheduler import Schedule


class ClosureStep(Step):
    """Take steps of optimizers that evaluate J and ∇J as often as they like (L-BFGS, SAM)."""

    def descend(self, micro_batches: MicroBatches) -> None:
        """Let the optimizer look; one that breaks off where J is not finite diverges."""
        values: list[Tensor] = []
        closure = self.make_closure(micro_batches)

        def look(gradient: bool = True) -> Tensor:
            values.append(closure(gradient))
            return values[-1]

        try:
            self.optimizer.step(look)  # type: ignore[arg-type]
        except (ArithmeticError, LookupError, ValueError) as error:
            if all(value.isfinite() for value in values):
                raise
            cause = nonfinite.culprit(self.model, micro_batches[-1][0].x)
            raise Diverged(self.state.step + 1, cause) from error

    def make_closure(self, micro_batches: MicroBatches) -> Callable[..., Tensor]:
        """Return J and ∇J on this step's samples: the same function however often it is called.

        ``closure()`` leaves ∇J in ``.grad`` and returns J; ``closure(gradient=False)`` returns J
        alone, at the price of a forward pass. Dropout draws the same masks each time, and running
        statistics move only once.
        """
        noise, calls = rng.get_state(), 0

        def closure(gradient: bool = True) -> Tensor:
            nonlocal calls
            calls += 1
            statistics: AbstractContextManager[None] = nullcontext()
            if calls > 1:
                rng.set_state(noise)
                statistics = still_statistics(self.model)
            with statistics:
                if not gradient:
                    return self.value(micro_batches)
                with torch.enable_grad():
                    return self.gradient(micro_batches, probe=calls > 1)

        return closure

    @torch.no_grad()
    def value(self, micro_batches: MicroBatches) -> Tensor:
        """Return J over all the micro-batches, a scalar, without its gradient."""
        with self.host.place.autocast():
            values = [(self.objective(None, batch), share) for batch, share in micro_batches]
            return self.total([value.objective * share for value, share in values])


class CurvatureStep(Step):
    """Take steps of optimizers that are given J with its second derivatives (Newton, K-FAC)."""

    def descend(self, micro_batches: MicroBatches) -> None:
        """Hand J on this step's samples to the optimizer."""
        self.optimizer.step(self.pose_problem(micro_batches))  # type: ignore[call-overload]

    def pose_problem(self, micro_batches: MicroBatches) -> StepObjective:
        """Return J on this step's samples, which counts the first look at it and checks it."""

        def see(total: Tensor, gradient: Tensor, risks: list[Tensor]) -> None:
            for (batch, share), risk in zip(micro_batches, risks, strict=True):
                # a share of 0 is a sample of others, which counts here in no mean
                if share:
                    self.state.sums.add_loss(risk.item(), len(batch))
            self.check(total, gradient.norm(), micro_batches[-1][0])

        return StepObjective(self.objective, micro_batches, self.mean, see)


def make_step(
    recipe: Recipe,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    host: Host,
    state: RunState | None = None,
) -> Step:
    """Make the step that an optimizer needs.

    Args:
        recipe: the run's parts.
        objective: J.
        optimizer: what moves the weights.
        schedule: what moves the optimizer's numbers.
        host: where gradients are computed.
        state: where the run stands; by default at its start.

    Raises:
        ConfigError: the optimizer cannot work with several processes.
    """
    refuse_processes(optimizer, recipe.needs, host)
    kind = Step
    if recipe.needs.closure:
        kind = ClosureStep
    elif recipe.needs.curvature:
        kind = CurvatureStep
    extras = StepExtras(
        edits=list(recipe.hooks("edit_batch").values()),
        projections=list(recipe.hooks("project").values()),
        averages=list(recipe.hooks("average").values()),
        clip_norm=recipe.step.clip.norm,
        clip_value=recipe.step.clip.value,
        create_graph=recipe.needs.create_graph,
    )
    return kind(objective, optimizer, schedule, host, extras, state)


def refuse_processes(optimizer: torch.optim.Optimizer, needs: Needs, host: Host) -> None:
    """Refuse what cannot be right with several processes.

    Raises:
        ConfigError: the optimizer differentiates the gradient again.
    """
    if needs.create_graph and host.world_size > 1:
        raise ConfigError(
            f"{type(optimizer).__name__} differentiates the gradient again, which several "
            "processes average without a record of how it came about: set trainer.devices=1"
        )
