"""The update step, written out: edit, gradient, check, clip, update, schedule, project, average."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import profiler
from torch.nn.utils import clip_grad_value_
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from truerisk.core.batch import Batch
from truerisk.core.deterministic import averaged_names, twice_differentiable_kernels
from truerisk.core.errors import ConfigError, Diverged
from truerisk.engine import nonfinite
from truerisk.engine.host import Host
from truerisk.engine.state import RunState
from truerisk.objective import Objective
from truerisk.scheduler import Schedule

WRAPPERS = ("torch.optim.optimizer", "truerisk.core.without_dynamo")
"""Modules that wrap the steps of torch's optimizers, to switch gradients off."""
MicroBatches = list[tuple[Batch, float]]
Hook = Callable[..., Any]


@dataclass(frozen=True)
class StepExtras:
    """What a step does beside the descent.

    Args:
        edits: hooks that edit a batch before it is looked at.
        projections: hooks that move the weights into a feasible set.
        averages: hooks that take the weights into an average.
        clip_norm: the largest norm of ∇J.
        clip_value: the largest entry of ∇J.
        create_graph: whether ∇J is differentiated again.
    """

    edits: Sequence[Hook] = ()
    projections: Sequence[Hook] = ()
    averages: Sequence[Hook] = ()
    clip_norm: float | None = None
    clip_value: float | None = None
    create_graph: bool = False


class Step:
    """Take optimizer steps of one model and count them.

    A step sees one or more micro-batches with their shares of its samples, so that accumulation
    and uneven shards give the gradient of the mean over all of them.

    Args:
        objective: J.
        optimizer: what moves the weights.
        schedule: what moves the optimizer's numbers.
        host: where gradients are computed.
        extras: what else a step does.
        state: where the run stands; by default at its start.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        host: Host,
        extras: StepExtras,
        state: RunState | None = None,
    ) -> None:
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.host, self.extras = host, extras
        self.state = RunState() if state is None else state
        self.clips = extras.clip_norm is not None or extras.clip_value is not None
        self.averaged = averaged_names(self.model) if extras.averages else []
        self.named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.params = list(self.named.values())
        self.fused = FusedUpdate(optimizer)

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.objective.model

    def __call__(self, micro_batches: MicroBatches) -> None:
        """Take one step.

        Args:
            micro_batches: batches with the share each has in the step.

        Raises:
            Diverged: J or ∇J is no longer finite.
        """
        if self.extras.edits:
            micro_batches = [
                (edit_batch(self.extras.edits, b), share) for b, share in micro_batches
            ]
        self.descend(micro_batches)
        # the schedule after the update: it sets the numbers of the step to come
        self.state.step += 1
        self.schedule.step()
        if self.extras.projections:
            project_weights(self.extras.projections, self.named)
        # last, so that an average is one of projected weights
        if self.extras.averages:
            state = self.model.state_dict()
            own = {name: state[name] for name in self.averaged}
            average_weights(self.extras.averages, own, self.state.step)

    def descend(self, micro_batches: MicroBatches) -> None:
        """Move the weights along the gradient; see `truerisk.engine.several_looks` for more."""
        self.gradient(micro_batches)
        self.update()

    def gradient(self, micro_batches: MicroBatches, probe: bool = False) -> Tensor:
        """Put the clipped ∇J over all the micro-batches in ``.grad``.

        Args:
            micro_batches: batches with the share each has in the step.
            probe: whether this is a further look within one step. It may leave the finite numbers,
                as a line search knows how to come back, and counts in no mean.

        Returns:
            J, a scalar.
        """
        # None rather than zeros, which momentum and weight decay would act on all the same
        for p in self.params:
            p.grad = None
        parts = []
        for batch, share in micro_batches:
            with self.arithmetic():
                value = self.objective(None, batch)
                # A share of one is not multiplied in: a kernel less on every ordinary step.
                part = value.objective if share == 1 else value.objective * share
                # at once, so that only one micro-batch's graph is in memory
                self.host.backward(part, create_graph=self.extras.create_graph)
            parts.append(part.detach())
            # a share of 0 is a sample of others, computed so that no process waits for this one
            if share and not probe:
                self.state.sums.add_loss(value.risk.item(), len(batch))
        self.check_curvature()
        objective = self.total(parts)
        norm = self.gradient_norm()
        if not probe:
            self.check(objective, self.host.whole(norm), micro_batches[-1][0])
        # after the check: an infinite norm would scale the gradient to zeros and nan
        if self.clips:
            self.clip(norm)
        return objective

    def total(self, parts: list[Tensor]) -> Tensor:
        """Add up the parts of J, and average it over the processes."""
        total = parts[0] if len(parts) == 1 else torch.stack(parts).sum()
        return self.mean(total)

    def mean(self, tensor: Tensor) -> Tensor:
        """Average a tensor over the processes."""
        world = self.host.world_size
        return tensor if world == 1 else self.host.sum(tensor) / world

    def gradient_norm(self) -> Tensor:
        """Return ‖∇J‖₂ of all parameters together, unscaled."""
        if self.host.scaler is not None:
            self.host.scaler.unscale_(self.optimizer)
        grads = [p.grad for p in self.params if p.grad is not None]
        if self.extras.create_graph:
            grads = [grad.detach() for grad in grads]
        # torch.nn.utils.get_total_norm sorts them by device and type first, which takes it twice as
        # long, and comes to the same bits.
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))

    def check(self, objective: Tensor, norm: Tensor, batch: Batch) -> None:
        """Raise Diverged where J or ∇J is not finite; all processes see the same numbers."""
        # Under a loss scaler an infinite gradient is part of the method: it skips the step.
        if not take_in(self.state, objective.item(), norm.item(), self.host.scaler is not None):
            culprit = nonfinite.culprit(self.model, batch.x)
            raise Diverged(self.state.step + 1, culprit)

    def check_curvature(self) -> None:
        """Raise ConfigError where there is no curvature to differentiate the gradient for."""
        if not self.extras.create_graph:
            return
        flat = (n for n, p in self.named.items() if p.grad is not None and p.grad.grad_fn is None)
        name = next(flat, None)
        if name is not None:
            raise ConfigError(
                f"{type(self.optimizer).__name__} divides by the curvature of J, which is "
                f"piecewise linear in {name!r}: choose another loss, add regularizer=l2, or take "
                "another optimizer"
            )

    @torch.no_grad()
    def clip(self, norm: Tensor) -> None:
        """Scale ∇J down to the largest norm allowed, or cut its entries, in place."""
        if self.extras.clip_norm is not None:
            scale = clip_scale(norm, self.extras.clip_norm)
            torch._foreach_mul_([p.grad for p in self.params if p.grad is not None], scale)
        if self.extras.clip_value is not None:
            clip_grad_value_(self.params, self.extras.clip_value)

    def update(self) -> None:
        """Let the optimizer move the weights."""
        if self.host.scaler is None:
            if self.state.step == 0:
                self.host.try_optimizer(self.optimizer)
            else:
                move_weights(self.fused)
        else:
            self.host.scaler.step(self.optimizer)
            self.host.scaler.update()
        if self.extras.create_graph:
            # The gradient's graph holds the weights, which hold the gradient.
            for p in self.params:
                p.grad = None if p.grad is None else p.grad.detach()

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Choose the precision, and kernels that the gradient can be differentiated through."""
        precision = self.host.place.autocast()
        if not self.extras.create_graph:
            return precision
        stack = ExitStack()
        stack.enter_context(precision)
        stack.enter_context(twice_differentiable_kernels(self.model))
        return stack

    def share_sums(self) -> None:
        """Spread what was seen evenly over the processes; its total stays as it is."""
        sums, world = self.state.sums, self.host.world_size
        if world > 1:
            seen = torch.tensor([sums.loss_sum, sums.samples], dtype=torch.float64)
            seen = self.host.sum(seen.to(self.params[0].device)) / world
            sums.loss_sum, sums.samples = seen.tolist()


def move_weights(fused: FusedUpdate) -> None:
    """Let an optimizer take its step, straight where nobody looks at it.

    torch puts every optimizer's step into a range of its profiler and between hooks, which takes a
    tenth of a small model's step though there be neither.

    Args:
        fused: the optimizer, with the short way to its kernel.
    """
    optimizer = fused.optimizer
    own = type(optimizer).step
    looked_at = (
        profiler._is_profiler_enabled
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
    # `hooked` is torch's mark of what it has put around the method that a class defines
    if looked_at or not getattr(own, "hooked", False) or is_replaced(optimizer):
        optimizer.step()
        return
    # a scheduler warns where no step has been seen to come before its own
    optimizer._opt_called = True  # type: ignore[attr-defined]
    step: Any = own.__wrapped__  # type: ignore[attr-defined]
    # what somebody has put in the place of torch's method is called as that was
    module = getattr(step, "__globals__", {}).get("__name__")
    if module not in WRAPPERS or not fused.take():
        step(optimizer)


def is_replaced(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether anyone but torch's schedulers has put another step on the object."""
    step = vars(optimizer).get("step")
    return step is not None and not hasattr(step, "_wrapped_by_lr_sched")


Group = Mapping[str, Any]
Tensors = list[Tensor]
States = list[dict[str, Tensor]]


class FusedUpdate:
    """The step of torch's fused Adam, AdamW or SGD, straight by its kernel.

    torch checks, looks up and sorts all tensors on the way there, which takes longer than the
    kernel does on a hundred thousand weights.

    Args:
        optimizer: what moves the weights, of any kind.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.launch = optimizer, LAUNCHES.get(type(optimizer))
        self._state: Mapping[Tensor, Any] | None = None
        self._groups: list[tuple[Group, Tensors, States]] = []

    def take(self) -> bool:
        """Take a step.

        Returns:
            Whether it was taken: nothing has moved where the optimizer is another one, is yet to
            make its state, or has numbers or gradients that ask for more than the kernel.
        """
        if self.launch is None or not (self._is_known() or self._find_states()):
            return False
        calls = []
        for group, params, states in self._groups:
            grads = [p.grad for p in params]
            numbers = (group["lr"], *group.get("betas", ()))
            made = group.get("momentum") == 0 or all(states)
            given = made and not any(g is None for g in grads)
            if not given or any(isinstance(number, Tensor) for number in numbers):
                return False
            calls.append((group, params, grads, states))
        with torch.no_grad():
            for call in calls:
                self.launch(*call)
        return True

    def _is_known(self) -> bool:
        """Tell whether the groups and the states are still those that were found."""
        # `load_state_dict` gives the optimizer another mapping, and other groups
        groups = self.optimizer.param_groups
        if self._state is not self.optimizer.state or len(groups) != len(self._groups):
            return False
        pairs = zip(self._groups, groups, strict=True)
        return all(g is held and len(g["params"]) == len(own) for (held, own, _), g in pairs)

    def _find_states(self) -> bool:
        """Find what the kernel moves; False where one call a group cannot."""
        state, groups = self.optimizer.state, list[tuple[Group, Tensors, States]]()
        for group in self.optimizer.param_groups:
            params = list(group["params"])
            states = [state.get(p, {}) for p in params]
            kinds = {(p.device, p.dtype, p.grad is not None and p.grad.layout) for p in params}
            plain = group["fused"] and not group["differentiable"] and not group.get("capturable")
            made = group.get("momentum") == 0 or all(states)
            if not (plain and made and len(kinds) == 1 and torch.strided in kinds.pop()):
                return False
            groups.append((group, params, states))
        for _, _, states in groups:
            join_counts(states)
        self._groups, self._state = groups, state
        return True


def join_counts(states: States) -> None:
    """Let the counts of steps lie side by side, so that one addition moves all of them.

    One by one they take a fifth of what the kernel does on a hundred thousand weights.
    """
    counts = [state["step"] for state in states if "step" in state]
    if counts:
        for state, count in zip(states, torch.stack(counts), strict=True):
            state["step"] = count


def launch_adam(group: Group, params: Tensors, grads: Tensors, states: States) -> None:
    """Move parameters as Adam does, or AdamW where the group's decay is decoupled."""
    steps = [state["step"] for state in states]
    joined = steps[0]._base
    if joined is None or any(step._base is not joined for step in steps):
        torch._foreach_add_(steps, 1)
    else:
        joined.add_(1)
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    largest = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
    beta1, beta2 = group["betas"]
    kernel(
        params,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        largest,
        steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=group["amsgrad"],
        maximize=group["maximize"],
    )


def launch_sgd(group: Group, params: Tensors, grads: Tensors, states: States) -> None:
    """Move parameters as stochastic gradient descent does, with or without momentum."""
    torch._fused_sgd_(
        params,
        grads,
        [state["momentum_buffer"] for state in states] if group["momentum"] else [],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=False,
    )


LAUNCHES: Mapping[type, Callable[..., None]] = {
    torch.optim.Adam: launch_adam,
    torch.optim.AdamW: launch_adam,
    torch.optim.SGD: launch_sgd,
}

# What follows is the same for one model and for a member of a stack.


def edit_batch(edits: Sequence[Hook], batch: Batch) -> Batch:
    """Let regularizers edit a batch, one after another."""
    weighed = batch.weight is not None
    for edit in edits:
        batch = edit(batch)
        if weighed and batch.weight is None:
            raise ConfigError(
                "data.source.weight: a regularizer that edits batches, such as mixup or cutmix, "
                "mixes samples that count unlike: leave it out, or set data.sampler=weighted"
            )
    return batch


def take_in(state: RunState, objective: float, norm: float, scaled: bool = False) -> bool:
    """Count a step's J and gradient norm, and tell whether the run may go on.

    Args:
        state: the run's, whose sums take them in.
        objective: J when the step began.
        norm: ‖∇J‖ before clipping.
        scaled: whether a loss scaler skips steps with an infinite gradient.

    Returns:
        False where J, or a gradient that nobody scales, is not finite.
    """
    if not math.isfinite(objective) or not (scaled or math.isfinite(norm)):
        return False
    state.sums.objective = objective
    if math.isfinite(norm):
        state.sums.add_norm(norm)
    return True


def clip_scale(norm: Tensor, largest: Tensor | float) -> Tensor:
    """Return the factor that brings gradients to a largest norm, as torch's own clipping has it.

    Args:
        norm: gradient norms, of any shape.
        largest: what they may be at most.

    Returns:
        min(1, largest / (norm + 1e-6)), of the shape of ``norm``.
    """
    return (largest / (norm + 1e-6)).clamp(max=1.0)


@torch.no_grad()
def project_weights(projections: Sequence[Hook], named: Mapping[str, Tensor]) -> None:
    """Let regularizers move the weights into their feasible sets, in place."""
    for project in projections:
        project(named)


@torch.no_grad()
def average_weights(averages: Sequence[Hook], state: Mapping[str, Tensor], step: int) -> None:
    """Let regularizers take the weights after a step into their averages.

    Args:
        averages: their hooks.
        state: parameters and running statistics by name.
        step: the number of the step, from 1.
    """
    for average in averages:
        average(state, step)
