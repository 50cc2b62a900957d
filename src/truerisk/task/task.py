"""What a task owns: targets, losses and errors a sample, titles, and which parts fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from truerisk.core.errors import ConfigError

# torch is imported where it is needed: what lists parts must not wait for it
if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

BATCH = 1000
"""Samples in one forward pass, training aside."""
Part = TypeVar("Part")
"""A regularizer; this folder lies below theirs."""


def holds_flags(values: np.ndarray) -> bool:
    """Tell whether targets are several columns of 0 and 1.

    Args:
        values: of any kind and shape.
    """
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "biuf":
        return False
    return bool(((values == 0) | (values == 1)).all())


def is_one_hot(values: np.ndarray) -> bool:
    """Tell whether targets are rows of 0 with a single 1.

    Args:
        values: of any kind and shape.
    """
    return holds_flags(values) and bool((values.sum(1) == 1).all())


def holds_lists(values: np.ndarray) -> bool:
    """Tell whether targets are lists of labels, of any length.

    Args:
        values: of any kind and shape.
    """
    if values.dtype.kind != "O" or values.ndim != 1 or not len(values):
        return False
    return all(isinstance(item, list | tuple | set) for item in values.tolist())


class FittedLoss(Protocol):
    """A loss together with what fitting it to the data showed."""

    loss: Any
    output_size: int
    logistic: bool

    def scale_targets(self, y: Tensor) -> Tensor:
        """Return targets in the units of the outputs."""
        ...

    def scale_outputs(self, values: Tensor) -> Tensor:
        """Return outputs for values in the units of the targets."""
        ...


def config_has_samples(target: str) -> bool:
    """Tell from the class path of a configuration's data whether there are samples to learn from.

    >>> config_has_samples("truerisk.data.NoData"), config_has_samples("truerisk.data.DataModule")
    (False, True)
    """
    # by its name, as importing the class would import torch
    return target.rpartition(".")[2] != "NoData"


class Task:
    """What is learned from data, and all that follows from it.

    A subclass in a file of this folder is a task of its own. It overrides what differs from
    samples whose risk is measured, without errors or classes.

    Attributes:
        name: in ``data.source.task`` and in ``metadata.json``.
        rank: place among the tasks, as they are listed and asked whether they recognise targets.
        phrase: what messages call it.
        losses: options of ``loss`` that fit, as messages list them.
        has_samples: whether there are samples at all.
        has_classes: whether a target is one of several classes, a label a sample.
        integer_inputs: whether inputs are whole numbers, neither standardized nor cast.
        scales_targets: whether targets are quantities that have a mean and a scale.
        takes_lists: whether a target may be a list of labels, of any length.
        error_title: of the error beside the risk, or None where there is none.
        score_title: what the number that counts is called in one line about a run.
        val_title: the same in a sentence.
        summary_title: above the table of a finished run.
        figure_name: the file of a run's main picture.
        progress: what is shown while training, names of metrics by their titles there; the last
            one weighs most.
        metric_kind: how torchmetrics' metrics of such targets begin; empty for quantities.
        population_method: what a known P is asked for, for the Bayes predictor's outputs.
        table_rows: metrics of the final table with their titles, where they are not the risks.
        refusals: why a part cannot work that requires what the task lacks, by what it requires.
    """

    name: ClassVar[str] = ""
    rank: ClassVar[int] = 99
    phrase: ClassVar[str] = "this task"
    losses: ClassVar[tuple[str, ...]] = ()
    has_samples: ClassVar[bool] = True
    has_classes: ClassVar[bool] = False
    integer_inputs: ClassVar[bool] = False
    scales_targets: ClassVar[bool] = False
    takes_lists: ClassVar[bool] = False
    error_title: ClassVar[str | None] = None
    score_title: ClassVar[str] = "risk/val"
    val_title: ClassVar[str] = "the validation risk"
    summary_title: ClassVar[str] = "risk at the weights with the lowest validation risk"
    figure_name: ClassVar[str] = "risk.png"
    progress: ClassVar[Mapping[str, str]] = {
        "objective": "objective",
        "train": "risk/train",
        "val": "risk/val",
    }
    table_rows: ClassVar[Mapping[str, str]] = {}
    refusals: ClassVar[Mapping[str, str]] = {}
    metric_kind: ClassVar[str] = ""
    population_method: ClassVar[str] = "bayes"

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    # --- targets ------------------------------------------------------------------------------

    def recognizes(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether targets of these kinds ask for this task where none is named.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: different whole numbers up to which they are classes; None for any.
        """
        return False

    def admits(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether targets of these kinds can be this task's where the loss is made for it.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: different whole numbers up to which they are classes; None for any.
        """
        return False

    def read_targets(
        self, values: np.ndarray, class_names: Sequence[str] | None = None
    ) -> tuple[Tensor, list[Any] | None]:
        """Return targets as this task types them, and the names of the classes where it has any.

        Args:
            values: the targets as they were read, [n] or [n, columns].
            class_names: names that other samples gave, whose order the labels take.

        Raises:
            ConfigError: the values are no targets of this task.
        """
        raise NotImplementedError

    def find_classes(self, y: Tensor) -> list[int]:
        """Return the numbers of the classes or labels that some sample has."""
        return []

    def renumber_targets(self, y: Tensor, mine: Sequence[str], names: Sequence[str]) -> Tensor:
        """Return targets in which the classes are numbered as another run numbered them.

        Args:
            y: the targets.
            mine: the names of their classes.
            names: those of the other run, in its order.
        """
        return y

    def check_inputs(self, x: Any) -> None:
        """Refuse inputs of another kind than this task's.

        Raises:
            ConfigError: they are.
        """

    def check_population(self, population: Any) -> None:
        """Refuse a distribution P that cannot be asked for what the true and Bayes risk need.

        Raises:
            ConfigError: a method is missing.
        """
        # asked before training, as risks under P are measured when it is over
        for method in ("sample", self.population_method):
            if not callable(getattr(population, method, None)):
                raise ConfigError(
                    f"data.source: the population {type(population).__name__} has no method "
                    f"'{method}', which the risk under P of {self.phrase} needs "
                    "(truerisk.data.Population says what it is asked for)"
                )

    def check_targets(self, y: Tensor, num_outputs: int) -> None:
        """Refuse targets of which nothing can be learned.

        Args:
            y: the targets.
            num_outputs: the number of classes, target columns or tokens.

        Raises:
            ConfigError: there are too few, or they are of another kind.
        """

    def count_targets(self, x: Any, y: Tensor, class_names: Sequence[str] | None) -> int:
        """Return the number of classes, target columns or tokens.

        Args:
            x: the inputs [n, *shape], a tensor or read one at a time.
            y: the targets.
            class_names: their names where there are any.
        """
        return int(y.shape[1])

    def strata(self, y: Tensor) -> Tensor | None:
        """Return labels [n] whose proportions splits keep; None where splits are plain draws."""
        return None

    def add_label_noise(
        self, y: Tensor, share: float, num_outputs: int, generator: torch.Generator
    ) -> Tensor:
        """Return the targets with a share of the labels replaced by another class.

        Args:
            y: the targets.
            share: from 0 to 1.
            num_outputs: the number of classes.
            generator: of the draws.
        """
        self.check_label_noise(share)
        return y

    def check_label_noise(self, share: float) -> None:
        """Refuse label noise where there are no class labels.

        Raises:
            ConfigError: there are none, and the share is not 0.
        """
        if share and not self.has_classes:
            raise ConfigError(
                f"data.label_noise is {share}, but {self.phrase} has no class labels: set it to 0"
            )

    def is_exact(self, split: str) -> bool:
        """Tell whether the risk on a whole split is known without error.

        The training set is all there is to the empirical risk; other splits stand for P.
        """
        return split == "train"

    # --- losses and errors --------------------------------------------------------------------

    def loss_types(self) -> tuple[type, ...]:
        """Return the classes of loss that are known to fit."""
        return ()

    def try_targets(self, outputs: Tensor) -> Tensor:
        """Return targets that go with outputs [n, K], for trying a loss out."""
        return outputs.new_zeros(outputs.shape)

    def try_outputs(self, like: Tensor, n: int, output_size: int) -> Tensor:
        """Return zeros in the shape of a model's outputs on n samples.

        Args:
            like: a tensor of the type and device they take.
            n: samples.
            output_size: outputs of the model.
        """
        return like.new_zeros(n, output_size)

    def count_outputs(self, logistic: bool, num_outputs: int) -> int:
        """Return how many outputs a model needs.

        Args:
            logistic: whether the loss is the logistic one, on logits.
            num_outputs: the number of classes, target columns or tokens.
        """
        return num_outputs

    def encode_targets(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the targets in the form that the loss takes.

        Args:
            fitted: the loss.
            outputs: the model's outputs, whose type the targets may take.
            y: the targets.
        """
        return y

    def compute_losses(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return one loss a sample, [n], or several, [n, …], which are averaged.

        Args:
            fitted: the loss.
            outputs: the model's outputs.
            y: the targets.
        """
        losses: Tensor = fitted.loss(outputs, self.encode_targets(fitted, outputs, y))
        return losses

    def compute_errors(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Return the error of each sample, [n] as floats; None where there is none.

        Args:
            fitted: the loss, whose outputs are read as a prediction.
            outputs: the model's outputs.
            y: the targets.
        """
        return None

    def compute_place_errors(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the error at each place of each sample, [n, T], where samples have places.

        Args:
            fitted: the loss, whose outputs are read as a prediction.
            outputs: the model's outputs.
            y: the targets.
        """
        raise NotImplementedError

    def stand_in_targets(self, x: Any, num_outputs: int, classes: Sequence[str]) -> Any:
        """Return targets for samples that have none, as `read_targets` takes them.

        Args:
            x: the inputs, as they were read.
            num_outputs: the number of classes, target columns or tokens.
            classes: the names of the classes, where there are any.
        """
        import numpy as np

        return np.zeros((len(x), num_outputs))

    def average_outputs(self, fitted: FittedLoss, outputs: Sequence[Tensor]) -> Tensor:
        """Return the outputs of an ensemble: those of the mean prediction.

        Args:
            fitted: the loss.
            outputs: of each of its models, [n, …].
        """
        import torch

        return torch.stack(list(outputs)).mean(0)

    def read_probabilities(self, fitted: FittedLoss, outputs: Tensor) -> Tensor | None:
        """Return the probabilities that outputs stand for; None where they stand for none.

        Args:
            fitted: the loss.
            outputs: the model's outputs.
        """
        return None

    def read_likelihoods(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Return log p(y | x), [n] or [n, …]; None where outputs stand for no probabilities.

        Args:
            fitted: the loss.
            outputs: the model's outputs.
            y: the targets.
        """
        return None

    def read_predictions(
        self, fitted: FittedLoss, outputs: Tensor, probabilities: Tensor | None
    ) -> Tensor:
        """Return what is predicted: quantities, labels or tokens.

        Args:
            fitted: the loss.
            outputs: the model's outputs.
            probabilities: see `read_probabilities`; they decide where there are any.
        """
        return outputs

    def bayes_outputs(self, population: Any, x: Tensor, fitted: FittedLoss) -> Tensor:
        """Return outputs [n, K] of the Bayes predictor.

        Args:
            population: the distribution P (`truerisk.data.Population`).
            x: inputs in P's own units.
            fitted: the loss that the outputs are for.
        """
        outputs: Tensor = getattr(population, self.population_method)(x)
        return outputs

    def constant_outputs(self, fitted: FittedLoss, y: Tensor) -> list[Tensor]:
        """Return outputs [1, …] among which the best constant ones are looked for; perhaps none.

        Args:
            fitted: the loss that the outputs are for.
            y: the training targets.
        """
        return []

    def spread_weights(self, weight: Tensor, losses: Tensor, y: Tensor) -> Tensor:
        """Return the factors of losses that weights of classes give them, in a shape that fits.

        Args:
            weight: one a class, [K].
            losses: as `compute_losses` returns them.
            y: the targets.

        Raises:
            ConfigError: the task has no classes.
        """
        raise ConfigError(
            f"loss.weight: {self.phrase} has no classes to weigh: set loss.weight=null"
        )

    # --- samples and parts that fit -----------------------------------------------------------

    def block_size(self, shape: Sequence[int]) -> int:
        """Return how many samples at most go through a model at once, training aside.

        Args:
            shape: of a sample.
        """
        return BATCH

    def check_part(self, name: str, requires: Iterable[str]) -> None:
        """Refuse a regularizer that requires what this task lacks.

        Args:
            name: as configurations have it.
            requires: keys of ``refusals``, or others, which any task meets.

        Raises:
            ConfigError: with what to change.
        """
        for requirement in requires:
            if requirement in self.refusals:
                raise ConfigError(self.refusals[requirement].format(name=name))

    def select_regularizers(self, regularizers: Mapping[str, Part]) -> dict[str, Part]:
        """Return the regularizers that act on this task.

        Raises:
            ConfigError: one of them cannot.
        """
        for name, regularizer in regularizers.items():
            self.check_part(name, regularizer.requirements())  # type: ignore[attr-defined]
        return dict(regularizers)

    def refuse_diagnostic(self, diagnostic: Any) -> str | None:
        """Return why a diagnostic cannot look at this task, if it cannot."""
        return None


def average_scores(outputs: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of softmax(f), for outputs f [n, …, K] of several models."""
    import torch

    logs = torch.stack([f.log_softmax(-1) for f in outputs])
    return logs.logsumexp(0) - math.log(len(outputs))


def average_logits(outputs: Sequence[Tensor]) -> Tensor:
    """Return the logit of the mean of sigmoid(f), for outputs f [n, …] of several models."""
    import torch

    # log p and log(1 - p) by themselves, as a p near 1 would round to it
    stacked = torch.stack(list(outputs))
    yes, no = torch.nn.functional.logsigmoid(torch.stack([stacked, -stacked])).logsumexp(1)
    return yes - no
