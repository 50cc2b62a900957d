"""Estimates of empirical and true risk, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from truerisk.core.batch import Batch
from truerisk.metric.collector import Collector, Gather
from truerisk.metric.metric import MetricEstimate
from truerisk.risk.measured import Measured

if TYPE_CHECKING:
    from truerisk.objective import Objective


class MeanEstimate:
    """The mean of values seen in any number of batches and processes, and its standard error.

    ``m = 1/n Σ lᵢ`` and ``se(m) = s/√n · √(1 − n/N)`` with ``s² = Σ(lᵢ − m)²/(n − 1)``. The last
    factor is the finite-population correction for n samples drawn without replacement out of N
    (Cochran 1977, §2.6): the risk on a whole set of N samples is known without error. For samples
    of P itself, N is infinite.

    Sums are kept in float64 and added over processes, so uneven batches and shards are exact.

    Args:
        device: where the values are.

    >>> estimate = MeanEstimate()
    >>> estimate.update(torch.tensor([1.0, 2.0])); estimate.update(torch.tensor([3.0]))
    >>> [round(x, 4) for x in estimate.to_measured()[:2]]
    [2.0, 0.5774]
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # Not a torchmetrics.Metric: making and moving one takes longer than a small forward pass,
        # and an epoch needs four.
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def update(self, values: Tensor) -> None:
        """Add values of any shape."""
        values = values.detach().to(self.sums.device).to(torch.float64)
        count = values.new_tensor(values.numel())
        self.sums += torch.stack([count, values.sum(), values.square().sum()])

    def sum_up(self) -> Tensor:
        """Return [n, Σl, Σl²] over all processes."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return self.sums
        sums = self.sums.clone()
        torch.distributed.all_reduce(sums)
        return sums

    @property
    def variance(self) -> float:
        """The sample variance."""
        return self.moments.variance

    @property
    def moments(self) -> Moments:
        """Number, mean and sample variance over all processes."""
        n, total, squares = self.sum_up().tolist()
        # In plain numbers: operations on 0-dimensional tensors take ten times as long.
        mean = total / n if n else math.nan
        if n <= 1:
            return Moments(n, mean, math.nan)
        return Moments(n, mean, max(squares - n * (mean * mean), 0.0) / (n - 1))

    def to_measured(self, population: float = math.inf, epoch: int | None = None) -> Measured:
        """Return the mean with its standard error.

        Args:
            population: of how many values those seen are a sample.
            epoch: after which they were measured.
        """
        return self.moments.to_measured(population, epoch)


class GroupedEstimate:
    """The mean of values that come in groups, perhaps weighted, and its cluster-robust error.

    ``m = Σ wᵢlᵢ / Σ wᵢ`` and ``se(m)² = G/(G − 1) · Σ_g (Σ_{i∈g} wᵢ(lᵢ − m))² / (Σ wᵢ)²`` over G
    groups: values are independent between groups, whatever they are within one. With a group a
    value and equal weights this is `MeanEstimate`'s.

    Source: Cameron & Miller, "A Practitioner's Guide to Cluster-Robust Inference", Journal of Human
    Resources 50 (2015), §II, with the small-sample factor G/(G − 1); for weights, Cochran 1977,
    §6.4 (ratio of two means).

    Args:
        groups: how many there are.
        device: where the values are.

    >>> estimate = GroupedEstimate(2)
    >>> estimate.update(torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([0, 0, 1, 1]))
    >>> [round(x, 4) for x in estimate.to_measured()[:2]]
    [2.0, 1.0]
    """

    def __init__(self, groups: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(3, groups, dtype=torch.float64, device=device)

    def update(self, values: Tensor, groups: Tensor, weights: Tensor | None = None) -> None:
        """Add values [n], or those at T places of each sample, [n, T].

        Args:
            values: of samples, or of their places.
            groups: the numbers of their groups, int64 in the same shape.
            weights: of the samples, [n]; None where all count alike.
        """
        values = values.detach().to(self.sums)
        # the places of a sample share it: a population counts samples
        shares = torch.full_like(values, len(values) / max(1, values.numel()))
        if weights is not None:
            weights = weights.to(self.sums).view(-1, *[1] * (values.ndim - 1))
        weights = shares if weights is None else weights * shares
        rows = torch.stack([shares, weights, weights * values])
        self.sums.index_add_(1, groups.to(self.sums.device).flatten(), rows.flatten(1))

    def to_measured(self, population: float = math.inf, epoch: int | None = None) -> Measured:
        """Return the mean with its standard error; of a single group there is none to be told.

        Args:
            population: of how many values those seen are a sample.
            epoch: after which they were measured.
        """
        sums = self.sums
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = sums.clone()
            torch.distributed.all_reduce(sums)
        count, weight, total = sums
        n, w = float(count.sum()), float(weight.sum())
        if not w:
            return Measured(math.nan, math.nan, epoch)
        mean = float(total.sum()) / w
        left = max(0.0, 1 - n / population)
        if not left:
            return Measured(mean, 0.0, epoch)
        seen = int((count > 0).sum())
        if seen < 2:
            return Measured(mean, math.nan, epoch, seen)
        squares = float((total - weight * mean).square().sum())
        return Measured(mean, math.sqrt(seen / (seen - 1) * squares * left) / w, epoch, seen)


def make_estimate(device: torch.device | str, groups: int) -> Any:
    """Return what takes in values: in groups, where there are any.

    Args:
        device: where the values are.
        groups: how many groups there are; 0 for independent values.
    """
    return GroupedEstimate(groups, device) if groups else MeanEstimate(device)


Marks = tuple[Tensor, Tensor | None]
"""Numbers of groups and weights [n] of the samples of a batch.

Groups are those of samples, [n], or of the places in them, [n, T], as where a sequence holds tokens
of several documents.
"""


def has_places(mark: Sequence[Tensor | None]) -> bool:
    """Tell whether the marks of a batch number the groups of places.

    Args:
        mark: `Marks`, or nothing.
    """
    return bool(mark) and mark[0] is not None and mark[0].ndim > 1


def compute_moments(sums: Tensor) -> Tensor:
    """Return [n, mean, sample variance] of [n, Σl, Σl²] along the last axis."""
    n, total, squares = sums.unbind(-1)
    mean = total / n
    # rounding may take the difference of two large sums below 0
    variance = (squares - n * mean.square()).clamp(min=0) / (n - 1)
    return torch.stack([n, mean, variance], -1)


class Moments(NamedTuple):
    """Number, mean and sample variance of some values."""

    size: float
    mean: float
    variance: float

    def to_measured(self, population: float = math.inf, epoch: int | None = None) -> Measured:
        """Return the mean with its standard error.

        Args:
            population: of how many values these are a sample.
            epoch: after which they were measured.
        """
        left = max(0.0, 1 - self.size / population)
        if not left:
            return Measured(self.mean, 0.0, epoch)
        return Measured(
            self.mean, math.sqrt(self.variance / self.size * left), epoch, int(self.size)
        )


class Measurement(NamedTuple):
    """What one pass over a set of samples shows.

    ``trained`` is the mean of the losses that training lowers, where others are reported; metrics
    are named without ``metric/``. ``samples`` are losses and errors [n], as they are reported, of
    what this process measured, where they are kept.
    """

    risk: MeanEstimate | GroupedEstimate | Moments
    errors: MeanEstimate | GroupedEstimate | Moments | None
    penalties: dict[str, float]
    trained: float | None = None
    metrics: Mapping[str, MetricEstimate] = MappingProxyType({})
    samples: Mapping[str, Tensor] = MappingProxyType({})

    def name_risks(
        self, split: str, epoch: int | None, population: float = math.inf
    ) -> dict[str, Measured]:
        """Name the risk ``risk/<split>``, the error, if any, and metrics ``metric/NAME/<split>``.

        A metric of several values has ``metric/NAME/PART/<split>`` for each.

        Args:
            split: the name of the set.
            epoch: after which it was measured.
            population: of how many samples those measured are a part.
        """
        risks = {f"risk/{split}": self.risk.to_measured(population, epoch)}
        if self.errors is not None:
            risks[f"error/{split}"] = self.errors.to_measured(population, epoch)
        for name, estimate in self.metrics.items():
            # as of a mean: the influences that make the error are known of those measured
            left = math.sqrt(max(0.0, 1 - estimate.size / population))
            for part, value in estimate.values.items():
                stderr = estimate.stderrs.get(part)
                key = "/".join(filter(None, ["metric", name, part, split]))
                if stderr is None or not left:
                    risks[key] = Measured(value, None if stderr is None else 0.0, epoch)
                else:
                    size = estimate.size if estimate.groups is None else estimate.groups
                    risks[key] = Measured(value, stderr * left, epoch, size)
        return risks


def epoch_metrics(
    train: Measurement, val: Measurement, epoch: int, sizes: tuple[float, float]
) -> dict[str, Measured]:
    """Name what is reported of an epoch: both risks, their estimate_gap, J and the penalties.

    Args:
        train: the training subset, measured.
        val: the validation set, measured.
        epoch: epochs that are over.
        sizes: how many samples the two are drawn from.

    Returns:
        Values with their standard errors, by name.
    """
    metrics = train.name_risks("train", epoch, sizes[0]) | val.name_risks("val", epoch, sizes[1])
    metrics |= name_gap(metrics)
    penalty = sum(train.penalties.values())
    trained = train.trained
    if trained is None:
        trained = metrics["risk/train"].value
    metrics["objective"] = Measured(trained + penalty, None, epoch)
    metrics["penalty"] = Measured(penalty, None, epoch)
    each = {f"penalty/{k}": Measured(v, None, epoch) for k, v in train.penalties.items()}
    return metrics | each


def flatten_metrics(
    metrics: Mapping[str, Measured], plain: Mapping[str, float]
) -> dict[str, float]:
    """Return measured values and plain ones by name, then the standard errors, as logged.

    Args:
        metrics: measured values, some with standard errors, which become ``NAME/stderr``.
        plain: numbers that have none.
    """
    values = {name: m.value for name, m in metrics.items()} | dict(plain)
    return values | {f"{n}/stderr": m.stderr for n, m in metrics.items() if m.stderr is not None}


@torch.no_grad()
def measure_batches(
    objective: Objective,
    state: Mapping[str, Tensor] | None,
    batches: Iterable[Batch],
    device: torch.device,
    marks: Iterable[Marks] | None = None,
    groups: int = 0,
    collector: Collector | None = None,
    thorough: bool = False,
    gather: Gather = lambda value: [value],
    keep: bool = False,
) -> Measurement:
    """Measure risk, error, penalties and metrics with the weights held still.

    The model must be in eval mode. Penalties that depend on the batch are averaged over samples.

    Args:
        objective: J and its parts.
        state: parameters and buffers by name; None for the model's own.
        batches: the samples.
        device: where sums are kept.
        marks: of each batch, where samples come in groups or have weights.
        groups: how many groups there are.
        collector: what keeps predictions for metrics.
        thorough: whether standard errors of metrics are worth a bootstrap.
        gather: returns every process's value, by rank.
        keep: whether the losses and errors of each sample are returned.
    """
    kept: dict[str, list[Tensor]] = {"risk": [], "error": []}
    trained = MeanEstimate(device)
    risk, errors = make_estimate(device, groups), make_estimate(device, groups)
    marked = iter(marks or ())
    penalties = {name: MeanEstimate(device) for name in objective.penalties}
    surrogate, differs = objective.surrogate, False
    has_errors = surrogate.task.error_title is not None
    for batch in batches:
        weight, batch = batch.weight, replace(batch, weight=None)
        value = objective(state, batch)
        losses = surrogate.report_losses(value.losses, value.outputs, batch.y)
        mark = next(marked, ())
        places = surrogate.compute_places(value.outputs, batch.y) if has_places(mark) else None
        seen = losses if places is None else places[0]
        risk.update(seen, *mark)
        if keep:
            kept["risk"].append(seen.detach())
        if losses is not value.losses or weight is not None:
            differs = True
            trained.update(value.losses if weight is None else value.losses * weight)
        if has_errors:
            wrong = surrogate.compute_errors(value.outputs, batch.y)
            if places is not None:
                wrong = places[1]
            errors.update(wrong, *mark)
            if keep:
                kept["error"].append(wrong)
        if collector is not None:
            collector.add(value.outputs, batch.y, *mark[:1])
        for name, penalty in value.penalties.items():
            penalties[name].update(penalty.expand(len(batch)))
        # not kept here: the next is read into its memory, which is in the cache
        del batch
    means = {name: mean.moments.mean for name, mean in penalties.items()}
    own = trained.moments.mean if differs else None
    metrics = {} if collector is None else collector.estimate(thorough, gather)
    samples = {key: torch.cat(parts) for key, parts in kept.items() if parts}
    return Measurement(risk, errors if has_errors else None, means, own, metrics, samples)


def name_gap(risks: Mapping[str, Measured]) -> dict[str, Measured]:
    """Name the gap of measured risks; nothing where one of them is missing."""
    if not {"risk/train", "risk/val"} <= risks.keys():
        return {}
    return {"risk/gap": estimate_gap(risks["risk/train"], risks["risk/val"])}


def estimate_gap(train: Measured, val: Measured) -> Measured:
    """Estimate f − g by validation minus train risk; the two samples are independent given w.

    Its size is that of one mean with as many degrees of freedom, ``(a² + b²)²/(a⁴/k + b⁴/l)`` of
    standard errors a, b with k and l degrees (Satterthwaite 1946).

    Args:
        train: the risk on training samples.
        val: the risk on validation samples.

    >>> estimate_gap(Measured(1.0, 0.3, 5), Measured(1.5, 0.4, 5))
    Measured(value=0.5, stderr=0.5, epoch=5, size=None)
    >>> estimate_gap(Measured(1.0, 0.3, 5, 21), Measured(1.5, 0.4, 5, 11)).size
    22
    """
    stderr = math.hypot(train.stderr or 0.0, val.stderr or 0.0)
    parts = [m for m in (train, val) if m.stderr]
    size = None
    known = all(m.size is not None and m.size > 1 for m in parts)
    if parts and known and math.isfinite(stderr):  # those of weights that are not numbers are none
        # in units of a power of two, or the fourth powers of a diverged run's errors overflow
        _, power = math.frexp(stderr)
        units = [(math.ldexp(m.stderr or 0.0, -power), (m.size or 0) - 1) for m in parts]
        below = sum(error**4 / degrees for error, degrees in units)
        size = 1 + int(math.ldexp(stderr, -power) ** 4 / below)
    return Measured(val.value - train.value, stderr, val.epoch, size)
