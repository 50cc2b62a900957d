"""One of several classes a sample."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from truerisk.core.errors import ConfigError, suggest
from truerisk.task.task import (
    FittedLoss,
    Task,
    average_logits,
    average_scores,
    holds_lists,
    is_one_hot,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


class Classification(Task):
    """Targets are class labels 0 … K−1, int64 [n]; outputs are scores [n, K].

    The logistic loss takes a single output for two classes, whose sign is the prediction, and one
    output a class for more (one against the rest).
    """

    name = "classification"
    rank = 0
    phrase = "a classification"
    losses = ("cross_entropy", "bce", "hinge", "squared", "ordinal")
    has_classes = True
    metric_kind = "Multiclass"
    error_title = "0-1 error"

    def recognizes(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are texts, truth values, or whole numbers of few kinds.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: different whole numbers up to which they are classes; None for any.
        """
        if holds_lists(values):
            return False
        if values.ndim > 1 and values.shape[1] != 1:
            # texts in several columns are no other task's either
            return values.dtype.kind not in "biuf" or (
                values.dtype.kind != "f" and is_one_hot(values)
            )
        if values.dtype.kind not in "iu":
            return values.dtype.kind != "f"
        return max_classes is None or len(set(values.ravel().tolist())) <= max_classes

    def admits(self, values: np.ndarray, max_classes: int | None) -> bool:
        """Tell whether the values are whole numbers or one-hot rows, as floating-point numbers.

        Args:
            values: the targets [n] or [n, columns].
            max_classes: different whole numbers up to which they are classes; None for any.
        """
        if values.dtype.kind != "f" or not len(values):
            return False
        if values.ndim > 1 and values.shape[1] != 1:
            return is_one_hot(values)
        if not (values == values.round()).all():  # gaps are none either
            return False
        return max_classes is None or len(set(values.ravel().tolist())) <= max_classes

    def read_targets(
        self, values: np.ndarray, class_names: Sequence[str] | None = None
    ) -> tuple[Tensor, list[Any] | None]:
        """Return labels int64 [n] and the classes, in their order: of the type of the values.

        Args:
            values: labels of any kind, [n] or [n, 1], or one-hot rows [n, K] of classes 0 … K−1.
            class_names: names that other samples gave, whose order the labels take.

        Raises:
            ConfigError: there are several labels a sample, or one that is none of ``class_names``.

        >>> import numpy as np
        >>> Classification().read_targets(np.array(["b", "a", "b"]))
        (tensor([1, 0, 1]), ['a', 'b'])
        """
        import torch

        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if is_one_hot(values):
            # numbered by their columns, as a class may have no row
            return torch.as_tensor(values.argmax(1)), list(class_names or range(values.shape[1]))
        items = values.tolist()
        if values.ndim != 1 or any(isinstance(item, list | tuple | dict) for item in items):
            raise ConfigError(
                f"data.source: the target has shape {values.shape} or holds lists, and class "
                "labels are one number a sample; set data.source.task=regression and a loss such "
                "as mse for several quantities, or data.source.task=multilabel loss=bce for lists "
                "of labels or a column of 0 and 1 each"
            )
        classes = list(class_names or order_classes(items))
        names = list(map(label_name, classes))
        places = {name: k for k, name in enumerate(names)}
        labels = [label_name(v) for v in items]
        unknown = next((label for label in labels if label not in places), None)
        if unknown is not None:
            raise ConfigError(
                f"data.source: class '{unknown}' is not among the classes trained on; "
                f"{suggest(unknown, names)}"
            )
        return torch.tensor([places[label] for label in labels], dtype=torch.long), classes

    def find_classes(self, y: Tensor) -> list[int]:
        """Return the labels that some sample has."""
        return y.unique().tolist()

    def renumber_targets(self, y: Tensor, mine: Sequence[str], names: Sequence[str]) -> Tensor:
        """Return labels in which the classes are numbered as another run numbered them.

        Args:
            y: labels [n].
            mine: the names of their classes.
            names: those of the other run, in its order.
        """
        import torch

        number = {name: k for k, name in enumerate(names)}
        # -1 for a class that no sample has
        return torch.tensor([number.get(name, -1) for name in mine])[y]

    def check_targets(self, y: Tensor, num_outputs: int) -> None:
        """Refuse fewer than two classes.

        Args:
            y: the labels [n].
            num_outputs: the number of classes.

        Raises:
            ConfigError: there are fewer than two.
        """
        if num_outputs < 2:
            raise ConfigError(
                "data.source: the target has fewer than two classes; choose another target, or "
                "set data.source.task=regression if it is a quantity"
            )

    def count_targets(self, x: Any, y: Tensor, class_names: Sequence[str] | None) -> int:
        """Return the number of classes.

        Args:
            x: the inputs, which are not looked at.
            y: the labels [n].
            class_names: their names where there are any.
        """
        # a class may have no sample here
        if class_names is not None:
            return len(class_names)
        return int(y.max()) + 1 if len(y) else 0

    def strata(self, y: Tensor) -> Tensor:
        """Return the labels, whose proportions splits keep."""
        return y

    def add_label_noise(
        self, y: Tensor, share: float, num_outputs: int, generator: torch.Generator
    ) -> Tensor:
        """Replace round(share · n) randomly chosen labels by another class, drawn uniformly.

        With the same generator state a larger share changes the same labels and more.

        Args:
            y: labels [n].
            share: from 0 to 1.
            num_outputs: the number of classes.
            generator: of the draws.

        >>> import torch
        >>> draw, y = torch.Generator().manual_seed(0), torch.zeros(100, dtype=torch.long)
        >>> int((Classification().add_label_noise(y, 0.25, 3, draw) != 0).sum())
        25
        """
        import torch

        chosen = torch.randperm(len(y), generator=generator)
        shift = torch.randint(1, num_outputs, (len(y),), generator=generator)
        # cut off last, so that a larger share changes the same labels and more
        shift[chosen[round(share * len(y)) :]] = 0
        return (y + shift) % num_outputs

    def loss_types(self) -> tuple[type, ...]:
        """Return the losses on scores of classes."""
        from torch import nn

        return (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCEWithLogitsLoss, nn.MultiMarginLoss)

    def try_targets(self, outputs: Tensor) -> Tensor:
        """Return class 0 for every sample, [n]."""
        return outputs.new_zeros(len(outputs)).long()

    def count_outputs(self, logistic: bool, num_outputs: int) -> int:
        """Return K, or 1 for the logistic loss of two classes.

        Args:
            logistic: whether the loss is the logistic one.
            num_outputs: K.
        """
        if logistic and num_outputs == 2:
            return 1
        return num_outputs

    def encode_targets(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return labels as they are; for the logistic loss 0 or 1 a sample, or one-hot [n, K].

        Args:
            fitted: the loss.
            outputs: the model's outputs.
            y: labels [n].
        """
        if not fitted.logistic:
            return y
        y = y.unsqueeze(-1)
        if fitted.output_size > 1:
            import torch

            y = torch.arange(fitted.output_size, device=y.device) == y
        return y.to(outputs.dtype)

    def compute_errors(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the 0–1 loss of each sample, [n].

        The predicted class is the largest output's, or the sign of a single output.

        Args:
            fitted: the loss.
            outputs: scores [n, K], or [n, 1].
            y: labels [n].
        """
        import torch

        predicted = class_scores(fitted, outputs).argmax(-1)
        if fitted.output_size == 1 and fitted.logistic:
            predicted = outputs.squeeze(-1) > 0
        return (predicted != y).to(torch.get_default_dtype())

    def stand_in_targets(self, x: Any, num_outputs: int, classes: Sequence[str]) -> Any:
        """Return the first class for every sample, [n].

        Args:
            x: the inputs, as they were read.
            num_outputs: the number of classes.
            classes: their names.
        """
        import numpy as np

        return np.array([classes[0]] * len(x), dtype=object)

    def average_outputs(self, fitted: FittedLoss, outputs: Sequence[Tensor]) -> Tensor:
        """Return scores of the mean of the probabilities; of scores without any, their mean.

        Args:
            fitted: the loss.
            outputs: of each model, [n, K].
        """
        if self.read_probabilities(fitted, outputs[0]) is None:
            return super().average_outputs(fitted, outputs)
        if fitted.logistic:
            return average_logits(outputs)
        return average_scores(outputs)

    def read_probabilities(self, fitted: FittedLoss, outputs: Tensor) -> Tensor | None:
        """Return p(k | x), [n, K]; None for a loss whose scores are no log-probabilities.

        Of K > 2 logits one against the rest it is their sigmoids, scaled to sum to 1.

        Args:
            fitted: the loss.
            outputs: scores [n, K], or [n, 1].
        """
        import torch

        if hasattr(fitted.loss, "log_probabilities"):
            return fitted.loss.log_probabilities(outputs).exp()
        if has_margin(fitted):
            return None
        if not fitted.logistic:
            return outputs.softmax(-1)
        p = outputs.sigmoid()
        if fitted.output_size == 1:
            return torch.cat([1 - p, p], -1)
        return p / p.sum(-1, keepdim=True)

    def read_likelihoods(self, fitted: FittedLoss, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Return log p(y | x), [n], in double precision; None as in `read_probabilities`.

        Args:
            fitted: the loss.
            outputs: scores [n, K], or [n, 1].
            y: labels [n].
        """
        import torch

        if has_margin(fitted):
            return None
        z = class_scores(fitted, outputs.double())
        if fitted.logistic and fitted.output_size == 1:
            z = torch.cat([torch.zeros_like(z), z], -1)
        elif fitted.logistic:
            z = torch.nn.functional.logsigmoid(z)
        # of a logarithm of a sum rather than the logarithm of a probability, which may be 0
        return z.log_softmax(-1).gather(-1, y.long()[:, None])[:, 0]

    def read_predictions(
        self, fitted: FittedLoss, outputs: Tensor, probabilities: Tensor | None
    ) -> Tensor:
        """Return the most likely class of each sample, int64 [n].

        Args:
            fitted: the loss.
            outputs: scores [n, K], or [n, 1].
            probabilities: [n, K], or None.
        """
        if probabilities is not None:
            return probabilities.argmax(-1)
        if fitted.output_size == 1 and fitted.logistic:
            return (outputs.squeeze(-1) > 0).long()
        return class_scores(fitted, outputs).argmax(-1)

    def spread_weights(self, weight: Tensor, losses: Tensor, y: Tensor) -> Tensor:
        """Return the weight of each sample's class, [n], or [n, 1] beside several losses a sample.

        Args:
            weight: one a class, [K].
            losses: [n] or [n, …].
            y: labels [n].
        """
        own = weight[y]
        return own.reshape(-1, *[1] * (losses.ndim - 1))

    def constant_outputs(self, fitted: FittedLoss, y: Tensor) -> list[Tensor]:
        """Return the classes' shares as scores, the largest class alone, and no preference, [1, K].

        Args:
            fitted: the loss that the outputs are for.
            y: the training labels [n].
        """
        import torch

        size = max(2, class_scores(fitted, torch.zeros(1, fitted.output_size)).shape[1])
        share = torch.bincount(y, minlength=size).double() / len(y)
        # a class without a sample gets a score that is low rather than infinite
        share = share.clamp(min=1e-12)
        if hasattr(fitted.loss, "encode_probabilities"):
            most = torch.nn.functional.one_hot(share.argmax(), size).double().clamp(min=1e-12)
            return [fitted.loss.encode_probabilities(p.unsqueeze(0)) for p in (share, most)]
        scores = [share.log(), torch.nn.functional.one_hot(share.argmax(), size).double()]
        if fitted.logistic:
            scores[0] = share.clamp(max=1 - 1e-12).logit()
        if fitted.output_size == 1:
            scores = [scores[0][1:], 2 * scores[1][1:] - 1]
        scores.append(torch.zeros_like(scores[0]))
        return [one.unsqueeze(0) for one in scores]

    def bayes_outputs(self, population: Any, x: Tensor, fitted: FittedLoss) -> Tensor:
        """Return log p(k | x), or the log-odds of each class for the logistic loss.

        Args:
            population: the distribution P, with ``bayes``.
            x: inputs in P's own units.
            fitted: the loss that the outputs are for.
        """
        probabilities: Tensor = population.bayes(x)
        if hasattr(fitted.loss, "encode_probabilities"):
            return fitted.loss.encode_probabilities(probabilities)
        if not fitted.logistic:
            return probabilities.log()
        odds = probabilities.logit()
        if fitted.output_size == 1:
            return odds[:, 1:]
        return odds


def has_margin(fitted: FittedLoss) -> bool:
    """Tell whether a loss wants margins, which say nothing of probabilities.

    Source: Bartlett, Jordan & McAuliffe, "Convexity, Classification, and Risk Bounds" (2006).
    """
    from torch import nn

    return isinstance(fitted.loss, nn.MultiMarginLoss) or bool(getattr(fitted.loss, "margin", None))


def class_scores(fitted: FittedLoss, outputs: Tensor) -> Tensor:
    """Return a score a class, [n, K], of which the largest is predicted.

    Args:
        fitted: the loss, which may have outputs of another number.
        outputs: the model's.
    """
    scores = getattr(fitted.loss, "log_probabilities", None)
    if scores is None:
        return outputs
    return scores(outputs)


def order_classes(labels: Sequence[Any]) -> list[Any]:
    """Return the different labels in their order; 3.0 is taken for 3.

    >>> order_classes([10, 9, 10]), order_classes([1, "unknown", 0])
    ([9, 10], [0, 1, 'unknown'])
    """
    try:
        # as values rather than texts, so that 9 comes before 10
        ordered = sorted(set(labels))
    except TypeError:  # numbers and texts have no order among each other
        ordered = sorted(set(labels), key=str)
    return list({label_name(label): label for label in ordered}.values())


def label_name(value: Any) -> str:
    """Return a label as text; 3.0 is written as 3.

    >>> label_name(3.0), label_name(True), label_name("cat")
    ('3', 'True', 'cat')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def find_class_type(classes: Sequence[Any]) -> str:
    """Return what classes are: ``number``, ``bool``, or ``text`` for any others.

    >>> [find_class_type(classes) for classes in ([0, 1], [0.5, 2], [False, True], [1, "unknown"])]
    ['number', 'number', 'bool', 'text']
    """
    import numpy as np

    if all(isinstance(label, bool | np.bool_) for label in classes):
        return "bool"
    # truth values beside numbers have names that are no numbers
    kinds = int | float | np.integer | np.floating
    if all(isinstance(label, kinds) and not isinstance(label, bool) for label in classes):
        return "number"
    return "text"


def read_classes(names: Sequence[str], class_type: str) -> np.ndarray:
    """Return classes [K] of the type that they were given in, by their names.

    Args:
        names: as `label_name` gives them.
        class_type: see `find_class_type`.

    >>> read_classes(["9", "10"], "number"), read_classes(["0.5", "2"], "number")
    (array([ 9, 10]), array([0.5, 2], dtype=object))
    """
    import numpy as np

    if class_type == "bool":
        return np.array([name == "True" for name in names])
    if class_type != "number":
        return np.array(names, dtype=object)
    classes = [int(name) if re.fullmatch(r"-?\d+", name) else float(name) for name in names]
    # whole ones beside others stay whole, as they are written
    return np.array(classes, dtype=None if all(isinstance(k, int) for k in classes) else object)
