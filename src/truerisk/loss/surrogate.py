"""The surrogate: a loss module fitted to the data's task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError
from truerisk.task import Task, all_tasks, get_task

Loss = Callable[[Tensor, Tensor], Tensor]


# a module, so that weights of classes move to the device with it
class Surrogate(nn.Module):
    """Per-sample surrogate loss l(outputs, y), of shape [n].

    Targets are what the task takes, such as class labels [n] of int64 or regression targets
    [n, outputs]; a loss with several values a sample is averaged over them. Outputs in half
    precision are raised to float32 first, so that a risk is never summed up in 8 bits.

    Source: "surrogate" as in Bartlett, Jordan & McAuliffe, "Convexity, Classification, and Risk
    Bounds", JASA 101 (2006): what is minimised in place of the 0–1 loss.

    Args:
        loss: one loss a sample, [n], or several, [n, …], of outputs and targets.
        task: what is learned.
        num_outputs: the number of classes, target columns or tokens.

    Attributes:
        output_size: how many outputs the model must have.
        logistic: whether the loss is the logistic one, on logits.
    """

    def __init__(self, loss: Loss, task: Task, num_outputs: int) -> None:
        super().__init__()
        self.loss, self.task = loss, task
        self.logistic = isinstance(loss, nn.BCEWithLogitsLoss)
        self.output_size = task.count_outputs(self.logistic, num_outputs)

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each sample, [n].

        Args:
            outputs: the model's outputs, [n, output_size] for most tasks.
            y: the targets.
        """
        # a mean of many losses in 8 bits of mantissa would lose all but the first
        if outputs.dtype.itemsize < 4:
            outputs = outputs.float()
        losses = self.task.compute_losses(self, outputs, y)
        if losses.ndim == 1:
            return losses
        losses = losses.flatten(1)
        return losses.squeeze(1) if losses.shape[1] == 1 else losses.mean(1)

    def compute_errors(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Return the error of each sample, [n] as floats; None where the task has none.

        Args:
            outputs: the model's outputs.
            y: the targets.
        """
        return self.task.compute_errors(self, outputs, y)


def adapt_loss(loss: Loss, task: Task | str, num_outputs: int) -> Surrogate:
    """Fit a loss to a task with ``num_outputs`` classes, target columns or tokens.

    ``loss(outputs, target)`` must return one loss a sample, [n], or several, [n, …]. It may have
    an attribute ``task``, the name of one; without one it is tried out.

    ``torch.nn.BCEWithLogitsLoss`` gets a single output for 2 classes, where its loss is
    ``log(1 + exp(∓f(x)))``, and one output a class for more (one against the rest).

    Args:
        loss: a module or a function.
        task: what is learned, or its name.
        num_outputs: the number of classes, target columns or tokens.

    Returns:
        The surrogate.

    Raises:
        ConfigError: the loss does not fit the task, fails, or returns one number a batch.

    >>> bce = adapt_loss(nn.BCEWithLogitsLoss(reduction="none"), "classification", 2)
    >>> bce.output_size, bce(torch.zeros(2, 1), torch.tensor([0, 1]))
    (1, tensor([0.6931, 0.6931]))
    """
    if isinstance(task, str):
        task = get_task(task)
    _check_task(loss, task)
    surrogate = Surrogate(loss, task, num_outputs)
    _try_loss(surrogate)
    return surrogate


def _loss_name(loss: Loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _fitting_options(task: Task) -> str:
    return f"for {task.name} there are loss={', loss='.join(task.losses)}"


def _check_task(loss: Loss, task: Task) -> None:
    """Refuse a loss that says, or is known, to be for other tasks."""
    known = [t.name for t in all_tasks().values() if isinstance(loss, t.loss_types())]
    meant = getattr(loss, "task", " or ".join(known))
    if meant and task.name not in meant.split(" or "):
        raise ConfigError(
            f"loss={_loss_name(loss)} is for {meant}, but the data's task is {task.name}; "
            f"{_fitting_options(task)}"
        )


def _try_loss(surrogate: Surrogate) -> None:
    """Call the loss on three made-up samples, so that a misfit shows before training."""
    n, name, task = 3, _loss_name(surrogate.loss), surrogate.task
    outputs = task.try_outputs(_reference_tensor(surrogate.loss), n, surrogate.output_size)
    try:
        with torch.no_grad():
            losses = task.compute_losses(surrogate, outputs, task.try_targets(outputs))
    except Exception as error:  # a user's loss may raise anything
        raise ConfigError(
            f"loss={name} fails on a batch for {task.name} with outputs {tuple(outputs.shape)}: "
            f"{error}; {_fitting_options(task)}"
        ) from error
    _check_shape(name, losses, n)


def _reference_tensor(loss: Loss) -> Tensor:
    """Return a tensor of the dtype and device of the loss's own, such as class weights."""
    tensors = [*loss.parameters(), *loss.buffers()] if isinstance(loss, nn.Module) else []
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def _check_shape(name: str, losses: Tensor, n: int) -> None:
    """Refuse a loss that gives one number for a batch, or another number of losses than n."""
    shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    if shape == ():
        raise ConfigError(
            f"loss={name} returns one number a batch; risks and their standard errors need one "
            "loss a sample: set `reduction: none` in the loss's config, or return shape [n]"
        )
    if not isinstance(losses, Tensor) or losses.shape[0] != n:
        raise ConfigError(f"loss={name} must return one loss a sample, shape [{n}]; got {shape}")
