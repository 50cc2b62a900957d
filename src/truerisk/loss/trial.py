"""A loss tried out before training: its shape, and whether each sample's is its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truerisk.core import rng
from truerisk.core.errors import (
    FAULTS,
    ConfigError,
    describe_fault,
    list_own_lines,
    locate_code,
    read_message,
)

if TYPE_CHECKING:
    from truerisk.loss.surrogate import Surrogate
    from truerisk.task import Task

OPTIONS: dict[type, str] = {
    nn.BCEWithLogitsLoss: "bce",
    nn.CrossEntropyLoss: "cross_entropy",
    nn.HuberLoss: "huber",
    nn.L1Loss: "mae",
    nn.MSELoss: "mse",
}
"""The options that give torch's losses; one of ours has the name of its class."""
SAMPLES = 5
"""Samples that a loss of somebody's own is tried on."""


def loss_name(loss: Any) -> str:
    """Return the option that gives a loss, or the name of a class or function that none gives.

    >>> loss_name(nn.MSELoss()), loss_name(nn.functional.l1_loss)
    ('mse', 'l1_loss')
    """
    kind = type(loss)
    name: str = getattr(loss, "__name__", kind.__name__)
    if kind.__module__.startswith("truerisk."):
        name = name.lower()
    return OPTIONS.get(kind, name)


def fitting_options(task: Task) -> str:
    """Return the end of a message: which losses fit a task."""
    return f"for {task.name} there are loss={', loss='.join(task.losses)}"


def reference_tensor(loss: Any) -> Tensor:
    """Return a tensor of the dtype and device of the loss's own, such as class weights."""
    if not isinstance(loss, nn.Module):
        return torch.zeros(())
    tensors = [*loss.parameters(), *loss.buffers()]
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def try_loss(surrogate: Surrogate) -> None:
    """Call the loss on a few made-up samples, so that a misfit shows before training.

    Args:
        surrogate: the loss, fitted to a task.

    Raises:
        ConfigError: it fails, or returns other than one number a sample.
    """
    name = surrogate.option
    tried = []
    for n in (3, 5):
        losses, numbers = _try_batch(surrogate, n)
        _check_shape(name, losses, n)
        tried.append(losses.shape[1:])
    # [n] beside [n, 1] is broadcast to [n, n], as one output is to several levels of a quantile
    if tried[0] != tried[1] or tried[0].numel() > numbers:
        raise ConfigError(
            f"loss={name} gives losses {list(losses.shape)} for {len(losses)} samples of "
            f"{numbers} numbers: an output is broadcast against more targets than its own; outputs "
            f"are [n, {surrogate.output_size}] and targets are given in a shape that fits them, so "
            "leave both as they are, or return one loss a sample"
        )


def _try_batch(surrogate: Surrogate, n: int) -> tuple[Tensor, int]:
    """Return the losses of n made-up samples, and how many outputs or targets a sample has."""
    outputs, targets = _make_batch(surrogate, n)
    try:
        with torch.no_grad():
            losses = surrogate.task.compute_losses(_copy_loss(surrogate), outputs, targets)
    except FAULTS as error:  # a user's loss may raise anything
        raise _explain_fault(surrogate, error, outputs, targets) from error
    return losses, max(outputs[0].numel(), targets[0].numel())


def _make_batch(surrogate: Surrogate, n: int) -> tuple[Tensor, Tensor]:
    """Return outputs and targets of n made-up samples."""
    task, like = surrogate.task, reference_tensor(surrogate.loss).detach()
    outputs = task.try_outputs(like, n, surrogate.output_size)
    targets = task.try_targets(outputs)
    if targets.shape == outputs.shape:
        targets = targets[..., : surrogate.num_outputs]
    return outputs, targets


def _explain_fault(
    surrogate: Surrogate, error: BaseException, outputs: Tensor, targets: Tensor
) -> ConfigError:
    """Say what a loss was given when it failed; its author's lines, or else which losses fit."""
    name, kind = surrogate.option, str(targets.dtype).removeprefix("torch.")
    given = (
        f"loss={name} fails on a batch for {surrogate.task.name} with outputs "
        f"{list(outputs.shape)} and targets {list(targets.shape)} ({kind})"
    )
    if list_own_lines(error):
        return ConfigError(f"{given}: {describe_fault(error)}")
    return ConfigError(f"{given}: {read_message(error)}; {fitting_options(surrogate.task)}")


def _check_shape(name: str, losses: Tensor, n: int) -> None:
    """Refuse a loss that gives one number for a batch, or another number of losses than n."""
    shape: Any = type(losses).__name__
    if isinstance(losses, Tensor):
        shape = tuple(losses.shape)
    if shape == ():
        raise ConfigError(
            f"loss={name} returns one number a batch; risks and their standard errors need one "
            "loss a sample: set `reduction: none` in the loss's config, or return shape [n]"
        )
    if not isinstance(losses, Tensor) or losses.shape[0] != n:
        raise ConfigError(f"loss={name} must return one loss a sample, shape [{n}]; got {shape}")
    if not losses.is_floating_point():
        kind = str(losses.dtype).removeprefix("torch.")
        raise ConfigError(
            f"loss={name} returns {kind}, of which there is no mean and no gradient: return "
            "floating-point numbers, as by .to(outputs.dtype)"
        )


def is_own_loss(loss: Any) -> bool:
    """Tell whether a loss is neither torch's nor this package's, whose losses are known."""
    return getattr(loss, "__module__", "").partition(".")[0] not in ("torch", "truerisk")


def _locate_forward(loss: Any) -> str:
    return locate_code(getattr(type(loss), "forward", loss))


def describe_untrained(surrogate: Surrogate) -> list[str]:
    """Say that a loss has parameters, which no optimizer is given.

    Args:
        surrogate: the loss, fitted to a task.

    Returns:
        A line, or none.
    """
    loss = surrogate.loss
    if not isinstance(loss, nn.Module):
        return []
    names = [name for name, parameter in loss.named_parameters() if parameter.requires_grad]
    if not names:
        return []
    told = ", ".join(names[:3]) + (", …" * (len(names) > 3))
    return [
        f"loss={surrogate.option}: its parameters ({told}) are not trained, and stay as __init__ "
        "made them: what is to be learned belongs to the model"
    ]


def check_gradient(surrogate: Surrogate) -> None:
    """Refuse a loss that no gradient goes through.

    Args:
        surrogate: the loss, fitted to a task.

    Raises:
        ConfigError: its values do not depend on the outputs by a gradient.
    """
    if not is_own_loss(surrogate.loss):
        return
    outputs, targets = _make_batch(surrogate, SAMPLES)
    with torch.enable_grad(), rng.fork_seeded(0):
        losses = surrogate.task.compute_losses(
            _copy_loss(surrogate), outputs.requires_grad_(), targets
        )
    if not losses.requires_grad:
        raise ConfigError(
            f"loss={surrogate.option} returns numbers without a gradient, so nothing "
            "could be learned: it must not .detach() the outputs, turn them into plain numbers or "
            f"take classes of them by argmax{_locate_forward(surrogate.loss)}"
        )


def check_independence(surrogate: Surrogate, y: Tensor) -> None:
    """Refuse a loss where that of one sample changes with the samples beside it.

    The outputs, then the targets of all samples but one are put in the place of others, then the
    batch is cut: the one's loss must stay, up to rounding. Draws are repeated by their seed; what
    no seed repeats cannot be told apart, and passes.

    Args:
        surrogate: the loss, fitted to a task.
        y: training targets [n, …].

    Raises:
        ConfigError: a loss changes, or all fail on these targets.
    """
    if not is_own_loss(surrogate.loss) or len(y) < 2:
        return
    few = min(SAMPLES, len(y))
    # targets that differ as much as there are
    order = y.reshape(len(y), -1)[:, 0].argsort()
    found = _find_numbers(surrogate, y[order[:few]])
    if found is None:
        return
    compute, outputs, targets = found
    base = compute(outputs, targets)
    if not _agree(base, compute(outputs, targets)):
        return
    high = y[order[-few:].flip(0)]
    if high.ndim > 1:
        high = high[:, : targets.shape[1]]
    others = {"outputs": (0.5 * outputs.flip(0), targets), "targets": (outputs, high.to(targets))}
    for what, numbers in others.items():
        for place in (0, few - 1):
            mixed = [number.clone() for number in numbers]
            mixed[0][place], mixed[1][place] = outputs[place], targets[place]
            if not _agree(base, compute(*mixed), place):
                _refuse_dependence(surrogate, place, f"the others' {what}", targets)
    # numbers of another batch are other draws, whatever the seed
    drawn = not _agree(base, compute(outputs, targets, seed=1))
    if few > 2 and not drawn and not _agree(base, compute(outputs[:2], targets[:2]), 0):
        _refuse_dependence(surrogate, 0, "how many there are beside it", targets)


def _agree(base: Tensor, losses: Tensor, place: int | None = None) -> bool:
    """Tell whether losses are the same up to rounding, all of them or those at one place."""
    margin = 1e-6 * base.abs().max() + 1e-4 * base.abs()
    if place is not None:
        base, losses, margin = base[place], losses[place], margin[place]
    return bool(((base - losses).abs() <= margin).all())  # asked so that NaN does not


def _refuse_dependence(surrogate: Surrogate, place: int, cause: str, targets: Tensor) -> None:
    shape = ", ".join(["n", *map(str, targets.shape[1:])])
    raise ConfigError(
        f"loss={surrogate.option}: the loss of sample {place} changes with {cause}, and "
        f"each needs one from its own outputs and target alone; targets are [{shape}] here: look "
        f"for [n] against [n, 1], which is [n, n], and for sums or means over the batch"
        f"{_locate_forward(surrogate.loss)}"
    )


def _copy_loss(surrogate: Surrogate) -> Surrogate:
    """Return a copy to be called, so that a loss that keeps something keeps nothing of a trial.

    What cannot be copied, such as a library that it holds, is the copy's as well.
    """
    shared: dict[int, Any] = {}
    with suppress(Exception):
        return copy.deepcopy(surrogate)
    # the innermost first: what holds one that has such a part is copied all the same
    for holder in [*reversed(list(surrogate.modules())[1:]), surrogate.loss]:
        for value in getattr(holder, "__dict__", {}).values():
            try:
                copy.deepcopy(value, dict(shared))
            except Exception:  # objects may refuse in any way
                shared[id(value)] = value
    return copy.deepcopy(surrogate, shared)


def _find_numbers(
    surrogate: Surrogate, y: Tensor
) -> tuple[Callable[..., Tensor], Tensor, Tensor] | None:
    """Find numbers of which the loss is finite: any, or shares; in double precision if it can.

    Args:
        surrogate: the loss.
        y: targets [n, …].

    Returns:
        What computes losses, and the outputs and targets for it; None where none are finite.
    """
    task, faults, works = surrogate.task, list[ConfigError](), False
    own = reference_tensor(surrogate.loss).dtype
    for dtype in dict.fromkeys((torch.float64, own)):
        like = task.try_outputs(torch.zeros((), dtype=dtype), len(y), surrogate.output_size)
        # of sequences, as many tokens as the trial has
        targets = y
        if like.ndim > 2:
            targets = y[:, : like.shape[1]]
        if targets.is_floating_point():
            targets = targets.to(dtype)
        draw = torch.Generator().manual_seed(0)
        shares = 0.1 + 0.8 * torch.rand(like.shape, generator=draw).to(like)
        compute = partial(_compute_losses, surrogate, dtype)
        for outputs in (torch.randn(like.shape, generator=draw).to(like), shares):
            try:
                losses = compute(outputs, targets)
            except FAULTS as error:  # a user's loss may raise anything
                faults.append(_explain_fault(surrogate, error, outputs, targets))
                continue
            works = True
            if bool(losses.isfinite().all()):
                return compute, outputs, targets
    if not works:
        raise faults[-1]
    return None


@torch.no_grad()
def _compute_losses(
    surrogate: Surrogate, dtype: torch.dtype, outputs: Tensor, targets: Tensor, seed: int = 0
) -> Tensor:
    """Return losses [n] of a copy, whose draws are those of the seed."""
    copied = _copy_loss(surrogate)
    if not {*copied.modules()} & {*surrogate.modules()}:
        copied = copied.to(dtype)
    with rng.fork_seeded(seed):
        return copied.compute_plain(outputs, targets)
