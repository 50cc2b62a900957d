"""What a metric is, and every metric of torchmetrics as one."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from truerisk.core.errors import (
    FAULTS,
    ConfigError,
    describe_fault,
    join_lines,
    list_own_lines,
    suggest,
)
from truerisk.metric.functionals import (
    CellCounts,
    Functional,
    agree_beyond_chance,
    average_rates,
    average_weighted,
    bin_calibration,
    bootstrap_stderr,
    combine_influences,
    compare_quantities,
    correlate_classes,
    find_influences,
    rank_positives,
)
from truerisk.task import FittedLoss

Seen = Mapping[str, Tensor]
"""What is kept of each sample: ``target``, and what a metric's ``needs`` name, [n, …] each."""

RATES = ("Accuracy", "Precision", "Recall", "Specificity", "F1Score", "FBetaScore")
OF_LABELS = (*RATES, "ConfusionMatrix", "MatthewsCorrCoef", "CohenKappa", "JaccardIndex")
"""Metrics of torchmetrics that look at the predicted class alone, unless asked for the top k."""
KINDS = ("Binary", "Multiclass", "Multilabel")
HOMES = ("classification", "regression")
"""Modules of torchmetrics whose metrics compare a prediction with a target, sample by sample."""
FLAT = ("Mean", "LogCosh", "Minkowski", "R2Score", "Relative", "Symmetric", "Weighted", "Tweedie")
"""How regression metrics begin that take several outputs without being told their number."""


class MetricEstimate(NamedTuple):
    """The values of a metric on some samples, and their standard errors.

    Args:
        values: by what they are of, ``""`` where there is one.
        stderrs: likewise; empty where they are not known.
        size: of how many samples.
        groups: how many groups those come in; None where they are independent.
        table: rows of numbers, where the metric is a table rather than values.
        samples: each value plus each sample's influence on it, [n], where those are known and
            asked for: their mean is the value, their spread its error.
    """

    values: dict[str, float]
    stderrs: dict[str, float]
    size: int
    table: list[list[float]] | None = None
    samples: Mapping[str, Tensor] = MappingProxyType({})
    groups: int | None = None


class Metric:
    """A number that the predictions on a set of samples have; a subclass says how it is computed.

    Attributes:
        name: in the configuration, once it is fitted.
        needs: what is kept of each sample beside its target: ``predicted`` classes, labels or
            quantities, ``probabilities``, the target's log-likelihood ``likelihood``.
        higher_is_better: None where it has no better and worse.
        parts: what its values are of, such as classes; ``("",)`` where it is one number.
        each_epoch: whether it is measured after each epoch, or at the end of a run alone.
    """

    name = "metric"
    needs: tuple[str, ...] = ("predicted",)
    higher_is_better: bool | None = None
    parts: tuple[str, ...] = ("",)
    each_epoch = True

    def fit_task(
        self, name: str, surrogate: FittedLoss, outputs: int, class_names: Sequence[str] | None
    ) -> Metric:
        """Return the metric for a task.

        Args:
            name: in the configuration.
            surrogate: the loss, with its task.
            outputs: the number of classes, labels, tokens or target columns.
            class_names: names of the classes, where there are any.

        Raises:
            ConfigError: it does not fit the task.
        """
        fitted = copy.copy(self)
        fitted.name = name
        return fitted

    def look_up_direction(self) -> bool | None:
        """Tell whether higher is better, before it is known of which task; None where neither."""
        return self.higher_is_better

    def find_functional(self, seen: Seen) -> Functional | None:
        """Return the metric as a functional of weights; None where it is not known as one."""
        return None

    def compute_values(self, seen: Seen) -> Tensor:
        """Return the values [v].

        Args:
            seen: what was kept of each sample.
        """
        functional = self.find_functional(seen)
        assert functional is not None
        return find_influences(functional, len(seen["target"]))[0]

    def estimate(
        self, seen: Seen, thorough: bool = False, groups: Tensor | None = None
    ) -> MetricEstimate:
        """Compute the values and their standard errors.

        Where the influence of a sample is known they are the infinitesimal jackknife's; else the
        bootstrap's, which takes 200 times as long as the metric.

        Args:
            seen: what was kept of each sample.
            thorough: whether the bootstrap is worth its time.
            groups: the group of each sample, [n], where samples of one depend on each other.
        """
        n = len(seen["target"])
        finite = all(bool(part.isfinite().all()) for part in seen.values())
        if not n or not finite:
            return MetricEstimate(dict.fromkeys(self.parts, math.nan), {}, n)
        with warnings.catch_warnings():
            # torchmetrics warns of classes that a split, or a draw of the bootstrap, does not have
            warnings.simplefilter("ignore")
            values = self.compute_values(seen).double().reshape(-1)
            stderrs, influences = self._estimate_stderrs(seen, values, thorough, groups)
        named = dict(zip(self.parts, values.tolist(), strict=True))
        if stderrs is None:
            return MetricEstimate(named, {}, n)
        # what rounding leaves of errors that cancel
        stderrs = torch.where(stderrs < 1e-12, 0.0, stderrs)
        told, samples = dict(zip(self.parts, stderrs.tolist(), strict=True)), {}
        if thorough and influences is not None and bool(influences.isfinite().all()):
            samples = dict(zip(self.parts, (values + influences).T, strict=True))
        return MetricEstimate(named, told, n, None, samples)

    def _estimate_stderrs(
        self, seen: Seen, values: Tensor, thorough: bool, groups: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        n = len(seen["target"])
        functional = self.find_functional(seen)
        if functional is not None:
            same, influences = find_influences(functional, n)
            # arguments of torchmetrics' that the functional does not know give other values
            if torch.allclose(same, values, rtol=1e-4, atol=1e-6, equal_nan=True):
                return combine_influences(influences, groups), influences
        if not thorough:
            return None, None

        def resample(index: Tensor) -> Tensor:
            return self.compute_values({key: part[index] for key, part in seen.items()})

        return bootstrap_stderr(resample, n, groups), None


class SampleMean(Metric):
    """The mean over samples of a score that each has by itself."""

    higher_is_better = False

    def score_samples(self, seen: Seen) -> Tensor:
        """Return the scores [n] or [n, …].

        Args:
            seen: what was kept of each sample.
        """
        raise NotImplementedError

    def find_functional(self, seen: Seen) -> Functional:
        """Return the mean of the scores."""
        return average_weighted(self.score_samples(seen))


class BrierScore(SampleMean):
    """The squared distance of the probabilities from the target, ``Σₖ (p(k|x) − 1[y = k])²``.

    Of labels that are each there or not it is the mean over them of ``(p − y)²``.

    Source: Brier, "Verification of Forecasts Expressed in Terms of Probability" (1950).
    """

    needs = ("probabilities",)

    def score_samples(self, seen: Seen) -> Tensor:
        """Return the squared distance of each sample, [n] or [n, labels]."""
        p, y = seen["probabilities"].double(), seen["target"]
        if y.ndim == p.ndim:
            return (p - y).square()
        truth = torch.nn.functional.one_hot(y.long(), p.shape[1])
        return (p - truth).square().sum(1)


class NegativeLogLikelihood(SampleMean):
    """The mean of ``−log p(y|x)``, whatever loss was trained on; of tokens or labels, the mean."""

    needs = ("likelihood",)

    def score_samples(self, seen: Seen) -> Tensor:
        """Return −log p(y|x), [n] or [n, …]."""
        return -seen["likelihood"]


class Perplexity(NegativeLogLikelihood):
    """``exp(−1/N Σ log p(token | those before it))``; its error counts sequences, not tokens."""

    def find_functional(self, seen: Seen) -> Functional:
        """Return the exponential of the mean."""
        mean = average_weighted(self.score_samples(seen))
        return lambda w: mean(w).exp()


class BitsPerByte(Metric):
    """``−Σ log₂ p(token | those before it) / Σ bytes of the tokens``, whatever the tokenizer.

    A ratio of two sums: its error is the delta method's, over documents where those are known.

    Args:
        token_bytes: gives how many bytes of UTF-8 each token stands for; filled in.
    """

    needs = ("likelihood",)
    higher_is_better = False

    def __init__(self, token_bytes: Callable[[], Sequence[int] | None] | None = None) -> None:
        self.token_bytes = token_bytes

    def fit_task(
        self, name: str, surrogate: FittedLoss, outputs: int, class_names: Sequence[str] | None
    ) -> Metric:
        """Return the metric for a task.

        Args:
            name: in the configuration.
            surrogate: the loss, with its task.
            outputs: the number of tokens.
            class_names: not looked at.

        Raises:
            ConfigError: it is not known how many bytes tokens stand for.
        """
        if self.token_bytes is None or self.token_bytes() is None:
            raise ConfigError(
                f"metric.{name} counts the bytes that tokens stand for, which data=text alone "
                "knows: take metric=[perplexity], or leave it out"
            )
        return super().fit_task(name, surrogate, outputs, class_names)

    def find_functional(self, seen: Seen) -> Functional:
        """Return the ratio of the sums of bits and of bytes."""
        assert self.token_bytes is not None
        table = torch.tensor(self.token_bytes(), dtype=torch.float64)
        y = seen["target"].long()
        n = len(y)
        # a boundary has no bytes, and its loss counts: documents are to end as well
        sizes = table[y].reshape(n, -1).sum(1)
        bits = -seen["likelihood"].double().reshape(n, -1).sum(1) / math.log(2)
        return lambda w: (w * bits).sum() / (w * sizes).sum()


def _list_classes() -> dict[str, Any]:
    """List the classes of torchmetrics that compare predictions with targets, by their names."""
    import torchmetrics

    modules = [getattr(torchmetrics, module) for module in HOMES]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


class TorchMetric(Metric):
    """A metric of torchmetrics, for the kind of data at hand.

    ``F1Score`` stands for ``BinaryF1Score``, ``MulticlassF1Score`` or ``MultilabelF1Score``: the
    kind, and the numbers of classes, labels or outputs, follow from the data.

    Args:
        metric: the name of a class in torchmetrics, or a metric that is one already.
        arguments: of the class. ``average: auto`` is for two classes the metric of the second one
            alone, else ``macro``; ``average: binary`` refuses more.
    """

    def __init__(self, metric: Any, arguments: Mapping[str, Any] | None = None) -> None:
        self.metric, self.arguments = metric, dict(arguments or {})
        self.short = metric if isinstance(metric, str) else type(metric).__name__
        self.kind, self.size = "", 1
        self.factory: Any = None

    def fit_task(
        self, name: str, surrogate: FittedLoss, outputs: int, class_names: Sequence[str] | None
    ) -> Metric:
        """Return the metric for a task, tried out on made-up samples.

        Args:
            name: in the configuration.
            surrogate: the loss, with its task.
            outputs: the number of classes, labels, tokens or target columns.
            class_names: names of the classes, where there are any.

        Raises:
            ConfigError: it does not fit the task, or torchmetrics refuses its arguments.
        """
        fitted = copy.copy(self)
        fitted.name, fitted.size = name, outputs
        fitted.arguments = dict(self.arguments)
        fitted._resolve(surrogate)
        count = fitted._try_out()
        names = [str(k) for k in range(count)]
        if class_names is not None and len(class_names) == count:
            names = [str(label).replace("/", "-") for label in class_names]
        fitted.parts = tuple(names) if count > 1 else ("",)
        return fitted

    def look_up_direction(self) -> bool | None:
        """Tell whether higher is better: all forms of a metric agree on that."""
        if not isinstance(self.metric, str):
            return self.metric.higher_is_better
        classes = _list_classes()
        forms = [classes.get(f"{kind}{self.metric}") for kind in ("", *KINDS)]
        known = [getattr(form, "higher_is_better", None) for form in forms]
        return next((higher for higher in known if higher is not None), None)

    def _resolve(self, surrogate: FittedLoss) -> None:
        """Find the class, its kind and its arguments."""
        home = surrogate.task.metric_kind  # type: ignore[attr-defined]
        if not isinstance(self.metric, str):
            self.factory = lambda **_: self.metric.clone()
            self.short = type(self.metric).__name__
            self.kind = next((kind for kind in KINDS if self.short.startswith(kind)), home)
            self.short = self.short.removeprefix(self.kind)
        else:
            classes = _list_classes()
            self.kind = next((kind for kind in KINDS if self.short.startswith(kind)), "")
            if not self.kind and any(f"{kind}{self.short}" in classes for kind in KINDS):
                self.kind = self._choose_kind(home)
                self.short = f"{self.kind}{self.short}"
            if self.short not in classes:
                hint = suggest(str(self.metric), [*classes, *RATES, "AUROC", "AveragePrecision"])
                raise ConfigError(
                    f"metric.{self.name}.metric={self.metric}: torchmetrics has no {self.short} "
                    f"among its metrics of {' and '.join(HOMES)}; {hint}"
                )
            self.factory = classes[self.short]
            self.short = self.short.removeprefix(self.kind)
        self._check_kind(home)
        self.higher_is_better = getattr(self.factory, "higher_is_better", None)
        if not isinstance(self.metric, str):
            self.higher_is_better = self.metric.higher_is_better
        labels_do = self.short in OF_LABELS and self.arguments.get("top_k") in (None, 1)
        self.needs = ("predicted",)
        if self.kind and not labels_do and "threshold" not in self.arguments:
            self.needs = ("probabilities",)

    def _choose_kind(self, home: str) -> str:
        """Choose among a metric's forms, and say what ``average: auto`` means."""
        average = self.arguments.get("average")
        pair = home == "Multiclass" and self.size == 2
        if average == "binary" and not pair:
            raise ConfigError(
                f"metric.{self.name}.arguments.average=binary is for two classes, and the data "
                f"has {self.size} of another kind or number: take macro, micro, weighted or none"
            )
        if average in ("auto", "binary"):
            del self.arguments["average"]
            if pair:
                return "Binary"
            self.arguments["average"] = "macro"
        return home or "Multiclass"

    def _check_kind(self, home: str) -> None:
        """Refuse a metric for another kind of data.

        Raises:
            ConfigError: it is.
        """
        fits = self.kind == home or (self.kind == "Binary" and home == "Multiclass")
        if self.kind == "Binary" and self.size != 2:
            fits = False
        if not fits:
            means = {"": "quantities", "Binary": "two classes", "Multiclass": "classes"}
            what = means.get(self.kind, "several labels a sample")
            there = {"": "quantities", "Multiclass": f"{self.size} classes"}
            raise ConfigError(
                f"metric.{self.name}: {self.kind}{self.short} is for {what}, and the data has "
                f"{there.get(home, 'several labels a sample')}; leave it out, or take another "
                "(truerisk parts metric)"
            )

    def make_metric(self, strict: bool = False) -> Any:
        """Make torchmetrics' object.

        Args:
            strict: whether it looks at its arguments and inputs.
        """
        known = inspect.signature(self.factory).parameters
        sizes = {"num_classes": self.size, "num_labels": self.size, "validate_args": strict}
        if not self.short.startswith(FLAT):
            sizes["num_outputs"] = self.size
        filled = {key: value for key, value in sizes.items() if key in known}
        # sums of float32 lose the last digits of a large set
        return self.factory(**{**filled, **self.arguments}).set_dtype(torch.float64)

    def _try_out(self) -> int:
        """Return how many values the metric has.

        Raises:
            ConfigError: torchmetrics refuses its arguments, or it gives no numbers.
        """
        draw = torch.Generator().manual_seed(0)
        n = 8 + 2 * self.size
        target = torch.arange(n) % self.size
        scores = torch.rand(n, self.size, generator=draw)
        seen = {"target": target, "probabilities": scores / scores.sum(1, keepdim=True)}
        seen["predicted"] = target.roll(1)
        if self.kind == "Multilabel":
            seen["target"] = torch.randint(2, (n, self.size), generator=draw)
            seen["predicted"] = seen["target"].roll(1, 0)
        if not self.kind:
            seen = {"target": 1 + scores, "predicted": 1 + scores.roll(1, 0)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                value = self._compute(self.make_metric(strict=True), seen)
            except FAULTS as error:  # torchmetrics, or a class of the user's, may raise anything
                said = join_lines(error)
                if list_own_lines(error):
                    said = describe_fault(error)
                raise ConfigError(f"metric.{self.name}: {self.kind}{self.short}: {said}") from error
        if not isinstance(value, Tensor) or value.ndim > 1:
            raise ConfigError(
                f"metric.{self.name}: {self.kind}{self.short} gives a curve or a table, and a "
                "metric is a number or one number a class (metric=[confusion_matrix] for that)"
            )
        return value.numel()

    def compute_values(self, seen: Seen) -> Tensor:
        """Return torchmetrics' values [v].

        Args:
            seen: what was kept of each sample.
        """
        value: Tensor = self._compute(self.make_metric(), seen)
        if self.short == "MatthewsCorrCoef":
            kept = seen["target"] != self.arguments.get("ignore_index", math.nan)
            # torchmetrics 1.9 has 0.05 and the like where all predictions are alike, others 0
            if min(len(part[kept].unique()) for part in seen.values()) < 2:
                value = torch.zeros_like(value)
        return value.reshape(-1)

    def _compute(self, metric: Any, seen: Seen) -> Any:
        shown, target = seen[self.needs[0]], seen["target"]
        if shown.is_floating_point():
            shown = shown.double()
        if self.kind == "Binary" and shown.ndim == 2:
            shown = shown[:, 1]
        if not self.kind and shown.ndim > 1 and shown.shape[1] == 1:
            shown, target = shown[:, 0], target[:, 0]
        if self.kind == "Multiclass" and target.ndim > 1:  # the tokens of sequences
            shown, target = shown.flatten(), target.flatten()
        # not in single precision: squares of targets far from 0 cancel
        target = target.long() if self.kind else target.double()
        # contiguous, as torchmetrics asks for views
        metric.update(shown.contiguous(), target.contiguous())
        return metric.compute()

    def find_functional(self, seen: Seen) -> Functional | None:
        """Return the metric as a functional of weights, where it is one that is known."""
        y = seen["target"]
        if not self.kind:
            return compare_quantities(self.short, y, seen["predicted"], self.arguments)
        if self.needs == ("predicted",):
            return self._count_classes(y, seen["predicted"])
        p, average = seen["probabilities"], self.arguments.get("average", "macro")
        if self.short in ("AUROC", "AveragePrecision"):
            if self.kind == "Binary":
                return rank_positives(self.short, y[:, None] == 1, p[:, 1:2], "macro")
            truth = y == 1 if self.kind == "Multilabel" else y[:, None] == torch.arange(self.size)
            return rank_positives(self.short, truth, p, average)
        if self.short == "CalibrationError" and self.arguments.get("norm", "l1") == "l1":
            return bin_calibration(y, p, self.arguments.get("n_bins", 15))
        if self.short == "Accuracy" and average == "micro" and self.kind == "Multiclass":
            top = p.topk(min(self.arguments["top_k"], self.size), 1).indices
            return average_weighted((top == y[:, None]).any(1))
        return None

    def _count_classes(self, y: Tensor, predicted: Tensor) -> Functional | None:
        labels = self.kind == "Multilabel"
        counts = CellCounts(y, predicted, 2 if labels else self.size, labels)
        if self.short in RATES:
            # what torchmetrics takes where it is not told
            average = self.arguments.get("average", "macro")
            beta = float(self.arguments.get("beta", 1.0))
            return average_rates(self.short, counts, average, beta, self.kind == "Binary")
        known: dict[str, Callable[[CellCounts], Functional]] = {
            "MatthewsCorrCoef": correlate_classes,
        }
        if not labels and self.arguments.get("weights") is None:
            known["CohenKappa"] = agree_beyond_chance
        return known[self.short](counts) if self.short in known else None
