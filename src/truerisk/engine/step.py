"""The update step, written out: gradient, check, clip, step, schedule, project, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_

from truerisk.core import rng
from truerisk.core.batch import Batch
from truerisk.core.deterministic import still_statistics
from truerisk.core.errors import ConfigError, Diverged
from truerisk.engine import nonfinite
from truerisk.objective import Objective
from truerisk.objective.problem import Problem
from truerisk.optimizer import Needs
from truerisk.recipe import Recipe
from truerisk.scheduler import Schedule
from truerisk.sharding import whole

MicroBatches = list[tuple[Batch, float]]


class Engine(Protocol):
    """How gradients are computed where the run takes place."""

    scaler: torch.amp.GradScaler | None
    world_size: int

    def backward(self, objective: Tensor, **options: Any) -> None:
        """Accumulate the gradient of a scalar, averaged over processes."""

    def sum(self, values: Tensor) -> Tensor:
        """Add up over processes."""


class Step:
    """Takes optimizer steps and counts them.

    A step sees one or more micro-batches with their shares of its samples, so that accumulation
    and uneven shards give the gradient of the mean over all of them.
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        engine: Engine,
    ) -> None:
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.options, self.needs, self.engine = recipe.step, recipe.needs, engine
        _refuse(optimizer, recipe.needs, engine)
        self.edits = list(recipe.hooks("edit_batch").values())
        self.projections = list(recipe.hooks("project").values())
        self.averages = list(recipe.hooks("average").values())
        self.named = {n: p for n, p in recipe.model.named_parameters() if p.requires_grad}
        self.params = list(self.named.values())
        self.count = 0
        self.sums = StepSums()

    def state_dict(self) -> dict[str, Any]:
        """What a continuation needs beside the weights and the optimizer's own state."""
        self._share_sums()
        sums = self.sums.state_dict()
        return {"count": self.count, "sums": sums, "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
        self.count = state["count"]
        self.sums.load_state_dict(state["sums"])
        self.schedule.load_state_dict(state["schedule"])

    def means(self) -> dict[str, float]:
        """The mean batch loss and gradient norm of the epoch so far, over all processes."""
        self._share_sums()
        return self.sums.means()

    def _share_sums(self) -> None:
        """Spread what was seen evenly over the processes; its total stays as it is."""
        sums, world = self.sums, self.engine.world_size
        if world > 1:
            seen = torch.tensor([sums.loss_sum, sums.samples], dtype=torch.float64)
            seen = self.engine.sum(seen.to(self.params[0].device)) / world
            sums.loss_sum, sums.samples = seen.tolist()

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.objective.model

    def __call__(self, micro_batches: MicroBatches) -> None:
        """Take one step."""
        micro_batches = [(self._edited(batch), share) for batch, share in micro_batches]
        if self.needs.closure:
            self._search(micro_batches)
        elif self.needs.curvature:
            self.optimizer.step(self._problem(micro_batches))  # type: ignore[call-overload]
        else:
            self.gradient(micro_batches)
            with self._full_precision():
                self._descend()
            self._release()
        self.count += 1
        self.schedule.step()
        if self.projections or self.averages:
            self._after()

    def _edited(self, batch: Batch) -> Batch:
        for edit in self.edits:
            batch = edit(batch)
        return batch

    def gradient(self, micro_batches: MicroBatches, probe: bool = False) -> Tensor:
        """Put the clipped ∇J over all the micro-batches in ``.grad`` and return J.

        A probe is a further look within one step: it may leave the finite numbers, as a line search
        knows how to come back, and counts in no mean.
        """
        for p in self.params:
            p.grad = None
        parts = []
        for batch, share in micro_batches:
            with self._recurrent():
                value = self.objective(None, batch)
            part = value.objective if share == 1 else value.objective * share
            self.engine.backward(part, create_graph=self.needs.create_graph)
            parts.append(part.detach())
            if share and not probe:
                self.sums.loss(value.risk.detach(), len(batch))
        self._check_curvature()
        total = self._total(parts)
        norm = self._norm()
        if not probe:
            self._check(total, whole(norm), micro_batches[-1][0])
        self._clip(norm)
        return total

    @torch.no_grad()
    def value(self, micro_batches: MicroBatches) -> Tensor:
        """J over all the micro-batches, without its gradient."""
        values = ((self.objective(None, batch), share) for batch, share in micro_batches)
        return self._total([value.objective * share for value, share in values])

    def _total(self, parts: list[Tensor]) -> Tensor:
        total = parts[0] if len(parts) == 1 else torch.stack(parts).sum()
        if self.engine.world_size > 1:
            total = self.engine.sum(total) / self.engine.world_size
        return total

    def _norm(self) -> Tensor:
        if self.engine.scaler is not None:
            self.engine.scaler.unscale_(self.optimizer)
        return _total_norm([p.grad for p in self.params if p.grad is not None])

    def _clip(self, norm: Tensor) -> None:
        if self.options.clip.norm is not None:
            clip_grads_with_norm_(self.params, self.options.clip.norm, norm)
        if self.options.clip.value is not None:
            clip_grad_value_(self.params, self.options.clip.value)

    def _check(self, objective: Tensor, norm: Tensor, batch: Batch) -> None:
        """Raise Diverged where J or ∇J is not finite; all processes see the same numbers.

        Under a loss scaler an infinite gradient is part of the method: it skips the step.
        """
        loss, size = objective.item(), norm.item()
        if not math.isfinite(loss) or (self.engine.scaler is None and not math.isfinite(size)):
            raise Diverged(self.count + 1, nonfinite.culprit(self.model, batch.x))
        self.sums.objective = loss
        if math.isfinite(size):
            self.sums.norm(size)

    def _check_curvature(self) -> None:
        """Raise where there is none to differentiate the gradient for."""
        flat = (n for n, p in self.named.items() if p.grad is not None and p.grad.grad_fn is None)
        name = next(flat, None) if self.needs.create_graph else None
        if name is not None:
            raise ConfigError(
                f"{type(self.optimizer).__name__} divides by the curvature of J, which is "
                f"piecewise linear in {name!r}: choose another loss, add regularizer=l2, or take "
                "another optimizer"
            )

    def _descend(self) -> None:
        if self.engine.scaler is None:
            self.optimizer.step()
        else:
            self.engine.scaler.step(self.optimizer)
            self.engine.scaler.update()

    def _full_precision(self) -> AbstractContextManager[Any]:
        """An optimizer's own matrix products are not for autocast."""
        device = self.params[0].device.type
        mixed = torch.is_autocast_enabled(device)
        return torch.autocast(device, enabled=False) if mixed else nullcontext()

    def _recurrent(self) -> AbstractContextManager[None]:
        """cuDNN's recurrent layers cannot be differentiated twice."""
        return cudnn.flags(enabled=False) if self.needs.create_graph else nullcontext()

    def _release(self) -> None:
        """Let go of the gradient's graph: it holds the weights, which hold the gradient."""
        if self.needs.create_graph:
            for p in self.params:
                p.grad = None if p.grad is None else p.grad.detach()

    def _search(self, micro_batches: MicroBatches) -> None:
        """A step that looks several times; one that breaks off where J is not finite diverges."""
        seen: list[Tensor] = []
        closure = self._closure(micro_batches)

        def look(gradient: bool = True) -> Tensor:
            seen.append(closure(gradient))
            return seen[-1]

        try:
            self.optimizer.step(look)  # type: ignore[arg-type]
        except (ArithmeticError, LookupError, ValueError) as error:
            if all(value.isfinite() for value in seen):
                raise
            cause = nonfinite.culprit(self.model, micro_batches[-1][0].x)
            raise Diverged(self.count + 1, cause) from error

    def _closure(self, micro_batches: MicroBatches) -> Callable[..., Tensor]:
        """J and ∇J on this step's samples: the same function however often it is called.

        ``closure()`` leaves ∇J in ``.grad`` and returns J; ``closure(gradient=False)`` returns J
        alone, at the price of a forward pass. Dropout draws the same masks each time, and running
        statistics move only once.
        """
        noise, calls = rng.get_state(), 0

        def closure(gradient: bool = True) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 1:
                rng.set_state(noise)
            still = still_statistics(self.model) if calls > 1 else nullcontext()
            with still:
                if not gradient:
                    return self.value(micro_batches)
                with torch.enable_grad():
                    return self.gradient(micro_batches, probe=calls > 1)

        return closure

    def _problem(self, micro_batches: MicroBatches) -> Problem:
        """J on this step's samples, which counts the first look at it and checks it."""

        def seen(total: Tensor, gradient: Tensor, risks: list[Tensor]) -> None:
            for (batch, share), risk in zip(micro_batches, risks, strict=True):
                if share:
                    self.sums.loss(risk, len(batch))
            self._check(total, gradient.norm(), micro_batches[-1][0])

        return Problem(self.objective, micro_batches, self._mean, seen)

    def _mean(self, tensor: Tensor) -> Tensor:
        world = self.engine.world_size
        return tensor if world == 1 else self.engine.sum(tensor) / world

    @torch.no_grad()
    def _after(self) -> None:
        for project in self.projections:
            project(self.named)
        if self.averages:
            state = self.model.state_dict()
            for average in self.averages:
                average(state, self.count)


@torch.no_grad()
def _total_norm(gradients: list[Tensor]) -> Tensor:
    """Their 2-norm, all taken together.

    ``torch.nn.utils.get_total_norm`` first sorts them by device and type, which takes it twice as
    long, and comes to the same bits.
    """
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def _refuse(optimizer: torch.optim.Optimizer, needs: Needs, engine: Engine) -> None:
    """What cannot be right with several processes."""
    if needs.create_graph and engine.world_size > 1:
        raise ConfigError(
            f"{type(optimizer).__name__} differentiates the gradient again, which several "
            "processes average without a record of how it came about: set trainer.devices=1"
        )


class StepSums:
    """Running sums over the steps of an epoch, for its mean batch loss and gradient norm."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a new epoch."""
        self.loss_sum, self.samples, self.norm_sum, self.norms = 0.0, 0, 0.0, 0
        self.objective = math.nan  # J when the last step began

    def loss(self, mean: Tensor, samples: int) -> None:
        """Add a micro-batch's mean loss."""
        self.loss_sum += mean.item() * samples
        self.samples += samples

    def norm(self, value: float) -> None:
        """Add a gradient norm, as measured before clipping."""
        self.norm_sum += value
        self.norms += 1

    def means(self) -> dict[str, float]:
        """The means so far; nothing before the first step."""
        if not self.norms:
            return {}
        return {
            "batch/loss": self.loss_sum / self.samples,
            "grad_norm": self.norm_sum / self.norms,
        }

    def state_dict(self) -> dict[str, float]:
        """The sums, so that a run resumed in mid-epoch reports the same means."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up the sums of a run that was cut off."""
        vars(self).update(state)
