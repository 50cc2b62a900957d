"""The surrogate: a loss module fitted to the data's task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from truerisk.core.errors import ConfigError
from truerisk.loss.trial import (
    check_independence,
    fitting_options,
    is_own_loss,
    loss_name,
    reference_tensor,
    try_loss,
)
from truerisk.task import Task, all_tasks, get_task

Loss = Callable[[Tensor, Tensor], Tensor]
TRAINING_ONLY: Mapping[type, Mapping[str, float]] = {
    nn.CrossEntropyLoss: {"label_smoothing": 0.0},
}
"""``training_only`` of torch's own losses: numbers that are no part of a risk, and what they are
while one is measured. A loss of one's own has it as an attribute of its class."""


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
        target_mean: what the outputs' 0 stands for, a number a target column.
        target_scale: what their 1 stands for beside it; None for the targets' own units.
        class_weight: factors of the losses of each class, [K]: training lowers those, and reports
            tell the losses without.
        option: what messages call the loss; by default the name of its class.

    Attributes:
        output_size: how many outputs the model must have.
        logistic: whether the loss is the logistic one, on logits.
    """

    stacks = ("mean", "scale", "unit")
    means: Tensor
    scales: Tensor
    units: Tensor
    class_weight: Tensor | None

    def __init__(
        self,
        loss: Loss,
        task: Task,
        num_outputs: int,
        target_mean: Sequence[float] | None = None,
        target_scale: Sequence[float] | None = None,
        class_weight: Sequence[float] | None = None,
        option: str | None = None,
    ) -> None:
        super().__init__()
        weight = None
        if class_weight is not None:
            weight = torch.tensor(list(class_weight), dtype=torch.get_default_dtype())
        # not persistent: what made it is in the configuration and with what the data fitted
        self.register_buffer("class_weight", weight, persistent=False)
        self.loss, self.task = loss, task
        self.option = option or loss_name(loss)
        self.logistic = isinstance(loss, nn.BCEWithLogitsLoss)
        self.output_size = task.count_outputs(self.logistic, num_outputs)
        # a loss may need other outputs than one a class or a column
        if hasattr(loss, "count_outputs"):
            self.output_size = loss.count_outputs(num_outputs)
        self.num_outputs = num_outputs
        # numbers where there is one column: they may differ from run to run of a stack
        self.mean: float | None = None
        self.scale: float | None = None
        self.unit: float | None = None
        if target_mean is not None and target_scale is not None:
            self._set_scale(target_mean, target_scale)

    def _set_scale(self, mean: Sequence[float], scale: Sequence[float]) -> None:
        degree = self.find_degree()
        if degree is None:
            return
        if len(scale) == 1:
            self.mean, self.scale = float(mean[0]), float(scale[0])
            self.unit = self.scale**degree
            return
        numbers = {"means": mean, "scales": scale, "units": [s**degree for s in scale]}
        for name, row in numbers.items():
            # not persistent, as checkpoints have them with what the data fitted
            tensor = torch.tensor(row, dtype=torch.get_default_dtype())
            self.register_buffer(name, tensor, persistent=False)

    @property
    def is_scaled(self) -> bool:
        """Whether outputs stand for standardized targets."""
        return self.scale is not None or hasattr(self, "scales")

    @property
    def val_title(self) -> str:
        """What the validation risk is called in a sentence that names a loss of one's own."""
        if not is_own_loss(self.loss):
            return self.task.val_title
        return f"{self.task.val_title} of loss={self.option}"

    @property
    def reports_others(self) -> bool:
        """Whether other losses are reported than those that training lowers."""
        weighs = self.class_weight is not None or self._has_positives
        return weighs or self.is_scaled or bool(self.find_training_numbers())

    def find_training_numbers(self) -> dict[str, float]:
        """Find the numbers of the loss that only training is to see.

        Returns:
            What they are while risks are measured, by name; those that stand there are left out.
        """
        kinds = getattr(type(self.loss), "__mro__", ())
        found = getattr(self.loss, "training_only", None)
        if found is None:
            found = next((TRAINING_ONLY[kind] for kind in kinds if kind in TRAINING_ONLY), {})
        present = {name: getattr(self.loss, name) for name in found}
        # a tensor stands for numbers of several runs
        return {n: found[n] for n, v in present.items() if isinstance(v, Tensor) or v != found[n]}

    @torch.no_grad()
    def find_degree(self) -> float | None:
        """Find k where ``l(a·f + b, a·y + b) = aᵏ l(f, y)``, so that a change of units is a factor.

        Huber's losses count as such, since their threshold is given in standardized units.

        Returns:
            2 for a squared error, 1 for an absolute one; None for a loss that is no such function
            of differences, or that mixes several target columns into one number.
        """
        if self.num_outputs > 1 and self.output_size != self.num_outputs:
            return None  # scales are told a column, and these outputs are no columns
        if isinstance(self.loss, nn.HuberLoss):
            return 2.0
        if isinstance(self.loss, nn.SmoothL1Loss):
            return 1.0
        draw = torch.Generator().manual_seed(0)
        like = self.task.try_outputs(reference_tensor(self.loss), 16, self.output_size)
        f = torch.randn(like.shape, generator=draw).to(like)
        y = torch.randn(16, self.num_outputs, generator=draw).to(like)

        def losses(scale: float, shift: float) -> Tensor:
            return self.task.compute_losses(self, scale * f + shift, scale * y + shift).double()

        try:
            base = losses(1, 0)
            if self.num_outputs > 1 and base.shape != y.shape:
                return None
            degree = float((losses(2, 0).sum() / base.sum()).log2().round(decimals=3))
            agree = [
                torch.allclose(losses(a, b), base * a**degree, rtol=1e-3, atol=1e-5 * a**degree)
                for a, b in ((2.0, 0.0), (3.0, 0.0), (1.0, 2.0))
            ]
        except Exception:  # a loss of somebody's own, which takes other numbers than these
            return None
        if all(agree) and degree > 0:
            return degree
        return None

    def scale_targets(self, y: Tensor) -> Tensor:
        """Return targets [n, …] in the units of the outputs, (y − mean) / scale."""
        if self.scale is not None and self.mean is not None:
            return (y - self.mean) / self.scale
        if self.is_scaled:
            return (y - self.means) / self.scales
        return y

    # the same map: values of the targets' units are what outputs stand for
    scale_outputs = scale_targets

    def decode_outputs(self, outputs: Tensor) -> Tensor:
        """Return outputs [n, …] in the targets' own units, f · scale + mean."""
        if self.scale is not None and self.mean is not None:
            return outputs * self.scale + self.mean
        if self.is_scaled:
            return outputs * self.scales.to(outputs) + self.means.to(outputs)
        return outputs

    def report_losses(self, losses: Tensor, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the losses [n] that are reported, in the targets' own units.

        They are those of the targets as they are, without what a loss does to train better.

        Args:
            losses: those that training lowers, [n]; the very tensor comes back where it is both.
            outputs: the model's outputs.
            y: the targets.
        """
        numbers = self.find_training_numbers()
        if numbers or self.class_weight is not None or self._has_positives:
            with self._replaced(numbers), self._unweighted():
                losses = self.compute_plain(outputs, y)
        if self.unit is not None:
            return losses * self.unit
        if self.is_scaled:
            # a unit a column: their mean is no multiple of the mean that is trained
            each = self.task.compute_losses(self, outputs.to(self.units.dtype), y)
            return (each * self.units).mean(1)
        return losses

    @property
    def _has_positives(self) -> bool:
        return getattr(self.loss, "pos_weight", None) is not None

    @contextmanager
    def _unweighted(self) -> Iterator[None]:
        """Count the positives of a logistic loss once inside the block."""
        if not self._has_positives:
            yield
            return
        buffers = self.loss._buffers  # type: ignore[attr-defined]
        weight = buffers["pos_weight"]
        buffers["pos_weight"] = None
        try:
            yield
        finally:
            buffers["pos_weight"] = weight

    @contextmanager
    def _replaced(self, numbers: Mapping[str, float]) -> Iterator[None]:
        """Put numbers of the loss in the place of its own inside the block."""
        own = vars(self.loss)  # past nn.Module's own __setattr__, which looks tensors up
        before = {name: own[name] for name in numbers}
        own.update(numbers)
        try:
            yield
        finally:
            own.update(before)

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each sample, [n].

        Args:
            outputs: the model's outputs, [n, output_size] for most tasks.
            y: the targets.

        Raises:
            ConfigError: the outputs are of another number: [n] beside [n, 1] would be compared
                each with each.
        """
        if outputs.shape[-1] != self.output_size:
            raise ConfigError(
                f"the model's outputs have shape {list(outputs.shape)}, and "
                f"loss={self.option} needs {self.output_size} a sample, "
                f"[…, {self.output_size}]: let the model end in as many, as output_size tells it"
            )
        return self._compute_losses(outputs, y, self.class_weight)

    def compute_plain(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each sample, [n], without weights of classes.

        Args:
            outputs: the model's outputs, [n, output_size] for most tasks.
            y: the targets.
        """
        return self._compute_losses(outputs, y, None)

    def compute_places(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the error at each place of each sample, [n, T], as they are reported.

        Args:
            outputs: the model's outputs, [n, T, …].
            y: the targets, [n, T].
        """
        if outputs.dtype.itemsize < 4:
            outputs = outputs.float()
        # as in `report_losses`: without what only training is to see
        with self._replaced(self.find_training_numbers()), self._unweighted():
            losses = self.task.compute_losses(self, outputs, y)
        return losses, self.task.compute_place_errors(self, outputs, y)

    def _compute_losses(self, outputs: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        # a mean of many losses in 8 bits of mantissa would lose all but the first
        if outputs.dtype.itemsize < 4:
            outputs = outputs.float()
        losses = self.task.compute_losses(self, outputs, y)
        if weight is not None:
            losses = losses * self.task.spread_weights(weight.to(losses.dtype), losses, y)
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


def adapt_loss(
    loss: Loss,
    task: Task | str,
    num_outputs: int,
    target_mean: Sequence[float] | None = None,
    target_scale: Sequence[float] | None = None,
    class_weight: Sequence[float] | None = None,
    option: str | None = None,
) -> Surrogate:
    """Fit a loss to a task with ``num_outputs`` classes, target columns or tokens.

    ``loss(outputs, target)`` must return one loss a sample, [n], or several, [n, …]. It may have
    an attribute ``task``, the name of one; without one it is tried out.

    A loss that needs another number of outputs has a method ``count_outputs(num_targets)``; one of
    classes then has ``log_probabilities(outputs)`` and ``encode_probabilities(probabilities)`` too,
    and one of quantities ``fit_constant(y)`` and ``encode_mean(mean)``, perhaps
    ``decode_mean(outputs)``. ``check_targets(y)`` may refuse training targets.

    ``torch.nn.BCEWithLogitsLoss`` gets a single output for 2 classes, where its loss is
    ``log(1 + exp(∓f(x)))``, and one output a class for more (one against the rest).

    Args:
        loss: a module or a function.
        task: what is learned, or its name.
        num_outputs: the number of classes, target columns or tokens.
        target_mean: what the outputs' 0 is to stand for, if the loss is one of differences.
        target_scale: what their 1 is to stand for beside it.
        class_weight: factors of the losses of each class.
        option: what messages call the loss; by default the name of its class.

    Returns:
        The surrogate.

    Raises:
        ConfigError: the loss does not fit the task, fails, or returns other than one number a
            sample.

    >>> bce = adapt_loss(nn.BCEWithLogitsLoss(reduction="none"), "classification", 2)
    >>> bce.output_size, bce(torch.zeros(2, 1), torch.tensor([0, 1]))
    (1, tensor([0.6931, 0.6931]))
    """
    if isinstance(task, str):
        task = get_task(task)
    option = option or loss_name(loss)
    _check_task(loss, task, option)
    surrogate = Surrogate(loss, task, num_outputs, target_mean, target_scale, class_weight, option)
    try_loss(surrogate)
    return surrogate


def find_suited_tasks(kind: Any) -> tuple[str, ...]:
    """Return the names of the tasks that a loss says, or is known, to be for; none if that is open.

    Args:
        kind: its class, or the function that it is.

    >>> find_suited_tasks(nn.MSELoss), find_suited_tasks(nn.BCEWithLogitsLoss)
    (('regression',), ('classification', 'multilabel'))
    """
    named = getattr(kind, "task", None)
    if named:
        return tuple(named.split(" or "))
    if not isinstance(kind, type):
        return ()
    return tuple(t.name for t in all_tasks().values() if issubclass(kind, t.loss_types()))


def _check_task(loss: Loss, task: Task, option: str) -> None:
    """Refuse a loss that says, or is known, to be for other tasks."""
    kind: Any = loss
    if isinstance(loss, nn.Module):
        kind = type(loss)
    meant = getattr(loss, "task", None) or " or ".join(find_suited_tasks(kind))
    if meant and task.name not in meant.split(" or "):
        raise ConfigError(
            f"loss={option} is for {meant}, but the data's task is {task.name}; "
            f"{fitting_options(task)}, or data.source.task says what the target is"
        )


def check_fit(surrogate: Surrogate, y: Tensor, class_names: Sequence[str] | None) -> None:
    """Refuse training targets that the loss is not for.

    Args:
        surrogate: the loss.
        y: the targets.
        class_names: in the order of their numbers, where that is known; None where it was given.

    Raises:
        ConfigError: the loss says so, asks for an order that texts do not have, or lets the loss
            of a sample depend on the samples beside it.
    """
    if hasattr(surrogate.loss, "check_targets"):
        surrogate.loss.check_targets(y)
    if getattr(surrogate.loss, "ordered", False) and class_names is not None:
        odd = [name for name in class_names if not _is_number(name)]
        if odd:
            raise ConfigError(
                f"loss={surrogate.option} needs classes in their order, and '{odd[0]}' "
                "has none: set data.source.classes to the list of them, the lowest first"
            )
    check_independence(surrogate, y)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
