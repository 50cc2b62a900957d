"""The surrogate: a loss module fitted to the data's task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError
from truerisk.loss.hinge import Hinge

Loss = Callable[[Tensor, Tensor], Tensor]

OPTIONS = {
    "classification": ("cross_entropy", "bce", "hinge"),
    "regression": ("mse", "mae", "huber"),
    "function": ("value",),
}
TASKS: dict[type, str] = {
    nn.CrossEntropyLoss: "classification",
    nn.NLLLoss: "classification",
    nn.BCEWithLogitsLoss: "classification",
    nn.MultiMarginLoss: "classification",
    Hinge: "classification",
    nn.MSELoss: "regression",
    nn.L1Loss: "regression",
    nn.HuberLoss: "regression",
    nn.SmoothL1Loss: "regression",
}


class Surrogate(nn.Module):
    """Per-sample surrogate loss l(outputs, y), of shape [n].

    Targets are class labels [n] of int64 or regression targets [n, outputs]; a loss with several
    values a sample is averaged over them. Outputs in half precision are raised to float32 first,
    so that a risk is never summed up in 8 bits.

    ``output_size`` is how many outputs the model must have.

    Source: "surrogate" as in Bartlett, Jordan & McAuliffe, "Convexity, Classification, and Risk
    Bounds", JASA 101 (2006): what is minimised in place of the 0–1 loss.
    """

    def __init__(self, loss: Loss, task: str, output_size: int) -> None:
        super().__init__()
        self.loss, self.task, self.output_size = loss, task, output_size

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each sample."""
        if outputs.dtype.itemsize < 4:
            outputs = outputs.float()
        losses = self.loss(outputs, self.target(outputs, y))
        if losses.ndim == 1:
            return losses
        losses = losses.flatten(1)
        return losses.squeeze(1) if losses.shape[1] == 1 else losses.mean(1)

    def target(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``y`` in the form the loss expects."""
        return y.to(outputs.dtype) if self.task == "regression" else y

    def errors(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        """The 0–1 loss of each sample, as floats; None where there are no classes.

        The predicted class is the largest output's, or the sign of a single output.
        """
        if self.task != "classification":
            return None
        single = self.output_size == 1
        predicted = outputs.squeeze(-1) > 0 if single else outputs.argmax(-1)
        return (predicted != y).to(torch.get_default_dtype())


class LabelSurrogate(Surrogate):
    """A loss that takes class labels as they are."""

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each sample."""
        if outputs.dtype.itemsize < 4:
            outputs = outputs.float()
        return self.loss(outputs, y)


class BinarySurrogate(Surrogate):
    """A loss on logits: of class 1 against class 0, or of each class against the rest."""

    def target(self, outputs: Tensor, y: Tensor) -> Tensor:
        """0 or 1 for a single output, else one-hot."""
        y = y.unsqueeze(-1)
        if self.output_size > 1:
            y = torch.arange(self.output_size, device=y.device) == y
        return y.to(outputs.dtype)


def surrogate(loss: Loss, task: str, num_outputs: int) -> Surrogate:
    """Fit a loss to a task with ``num_outputs`` classes or target columns.

    ``loss(outputs, target)`` must return one loss a sample, [n], or several, [n, …]. It may have
    an attribute ``task``, "classification" or "regression"; without one it is tried out.

    ``torch.nn.BCEWithLogitsLoss`` gets a single output for 2 classes, where its loss is
    ``log(1 + exp(∓f(x)))``, and one output a class for more (one against the rest).

    Raises:
        ConfigError: the loss does not fit the task, fails, or returns one number a batch.

    >>> bce = surrogate(nn.BCEWithLogitsLoss(reduction="none"), "classification", 2)
    >>> bce.output_size, bce(torch.zeros(2, 1), torch.tensor([0, 1]))
    (1, tensor([0.6931, 0.6931]))
    """
    _check_task(loss, task)
    if isinstance(loss, nn.BCEWithLogitsLoss):
        built: Surrogate = BinarySurrogate(loss, task, 1 if num_outputs == 2 else num_outputs)
    elif isinstance(loss, nn.CrossEntropyLoss | Hinge):
        built = LabelSurrogate(loss, task, num_outputs)
    else:
        built = Surrogate(loss, task, num_outputs)
    _try_out(built)
    return built


def _name(loss: Loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _fitting(task: str) -> str:
    return f"for {task} there are loss={', loss='.join(OPTIONS[task])}"


def _check_task(loss: Loss, task: str) -> None:
    known = (kind for kind in TASKS if isinstance(loss, kind))
    meant = getattr(loss, "task", None) or TASKS.get(next(known, type(None)))
    if meant is not None and meant != task:
        raise ConfigError(
            f"loss={_name(loss)} is for {meant}, but the data's task is {task}; {_fitting(task)}"
        )


def _try_out(built: Surrogate) -> None:
    """Call the loss on three made-up samples, so that a misfit shows before training."""
    n, name = 3, _name(built.loss)
    outputs = _like(built.loss).new_zeros(n, built.output_size)
    regression = built.task == "regression"
    y = torch.zeros_like(outputs) if regression else outputs.new_zeros(n, dtype=torch.int64)
    try:
        with torch.no_grad():
            losses = built.loss(outputs, built.target(outputs, y))
    except Exception as error:
        raise ConfigError(
            f"loss={name} fails on a batch for {built.task} with outputs {tuple(outputs.shape)}: "
            f"{error}; {_fitting(built.task)}"
        ) from error
    _check_shape(name, losses, n)


def _like(loss: Loss) -> Tensor:
    """A tensor of the dtype and device of the loss's own, such as class weights."""
    own = [*loss.parameters(), *loss.buffers()] if isinstance(loss, nn.Module) else []
    return next((t for t in own if t.is_floating_point()), torch.zeros(()))


def _check_shape(name: str, losses: Tensor, n: int) -> None:
    shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    if shape == ():
        raise ConfigError(
            f"loss={name} returns one number a batch; risks and their standard errors need one "
            "loss a sample: set `reduction: none` in the loss's config, or return shape [n]"
        )
    if not isinstance(losses, Tensor) or losses.shape[0] != n:
        raise ConfigError(f"loss={name} must return one loss a sample, shape [{n}]; got {shape}")
