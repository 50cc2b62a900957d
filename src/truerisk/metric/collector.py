"""The predictions on a set of samples, kept until the metrics of all of them are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from truerisk.core.errors import ConfigError
from truerisk.metric.metric import Metric, MetricEstimate, TorchMetric

Gather = Callable[[Any], list[Any]]


class Collector:
    """Keep what metrics need of each sample, batch after batch, in any number of processes.

    Most metrics are no mean over batches: they are computed once, of all samples in their order, so
    that batches of uneven size, processes and stacked runs give the same numbers.

    Args:
        metrics: by name, fitted to the task.
        surrogate: the loss, which says how outputs are read.
        limit: so many samples are kept at most; None for all.
    """

    def __init__(
        self, metrics: Mapping[str, Metric], surrogate: Any, limit: int | None = None
    ) -> None:
        self.metrics, self.surrogate, self.limit = metrics, surrogate, limit
        self.needs = {need for metric in metrics.values() for need in metric.needs}
        self.kept: dict[str, list[Tensor]] = {"target": [], **{need: [] for need in self.needs}}
        self.groups: list[Tensor] = []
        self.count = 0

    @torch.no_grad()
    def add(self, outputs: Tensor, y: Tensor, groups: Tensor | None = None) -> None:
        """Keep what is needed of some samples.

        Args:
            outputs: the model's outputs [n, …].
            y: the targets [n, …].
            groups: the group of each sample, [n], or of each of its places, [n, T], where those of
                one depend on each other.
        """
        if not self.metrics or (self.limit is not None and self.count >= self.limit):
            return
        self.count += len(y)
        if outputs.dtype.itemsize < 4:
            outputs = outputs.float()
        task, surrogate = self.surrogate.task, self.surrogate
        self.kept["target"].append(y.cpu())
        if "predicted" in self.needs:
            # quantities in the target's units, which those of the outputs need not be
            outputs_in_units = surrogate.decode_outputs(outputs)
            predicted = task.read_predictions(surrogate, outputs_in_units, None)
            self.kept["predicted"].append(predicted.cpu())
        if "probabilities" in self.needs:
            self.kept["probabilities"].append(task.read_probabilities(surrogate, outputs).cpu())
        if "likelihood" in self.needs:
            self.kept["likelihood"].append(task.read_likelihoods(surrogate, outputs, y).cpu())
        if groups is not None:
            self.groups.append(groups.cpu())

    def estimate(
        self, thorough: bool = False, gather: Gather = lambda value: [value]
    ) -> dict[str, MetricEstimate]:
        """Compute the metrics of all samples that were added, here and in other processes.

        Args:
            thorough: whether the bootstrap is worth its time, where nothing else gives an error.
            gather: returns every process's value, by rank; samples are dealt to them in turn.
        """
        if not self.metrics:
            return {}
        own = {key: torch.cat(parts) for key, parts in self.kept.items() if parts}
        if self.groups:
            own["groups"] = torch.cat(self.groups)
        shares = [share for share in gather(own) if share]
        seen = {key: deal_back([share[key] for share in shares]) for key in shares[0]}
        # a Trainer of the user's measures in inference mode, whose tensors have no derivatives
        with torch.inference_mode(False):
            seen = {
                key: part.clone() if part.is_inference() else part for key, part in seen.items()
            }
            groups, size = seen.pop("groups", None), len(seen["target"])
            count = None if groups is None else len(groups.unique())
            if groups is not None and groups.ndim > 1:
                # each place by itself, as those of a sample may be of several groups
                seen = {key: part.flatten(0, 1) for key, part in seen.items()}
                groups = groups.flatten()
            return {
                name: metric.estimate(seen, thorough, groups)._replace(size=size, groups=count)
                for name, metric in self.metrics.items()
                if thorough or metric.each_epoch
            }


def deal_back(parts: list[Tensor]) -> Tensor:
    """Put samples that were dealt to processes in turn into their order, [n, …].

    Args:
        parts: of each process, by rank.

    >>> deal_back([torch.tensor([0, 2]), torch.tensor([1])])
    tensor([0, 1, 2])
    """
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def fit_metrics(
    built: Mapping[str, Any], surrogate: Any, outputs: int, class_names: Any
) -> dict[str, Metric]:
    """Return metrics for a task, by name.

    Args:
        built: metrics of ours, or of torchmetrics.
        surrogate: the loss, with its task.
        outputs: the number of classes, labels, tokens or target columns.
        class_names: names of the classes, where there are any.

    Raises:
        ConfigError: one of them is neither, or does not fit the task.
    """
    fitted = {}
    for name, metric in built.items():
        if not isinstance(metric, Metric):
            metric = _wrap_metric(name, metric)
        if not surrogate.task.has_samples:
            raise ConfigError(f"metric.{name} compares predictions with targets: there is no data")
        fitted[name] = metric.fit_task(name, surrogate, outputs, class_names)
        _check_needs(fitted[name], surrogate)
    return fitted


def _wrap_metric(name: str, metric: Any) -> Metric:
    import torchmetrics

    if isinstance(metric, torchmetrics.Metric):
        return TorchMetric(metric)
    raise ConfigError(
        f"metric.{name}: {type(metric).__name__} is neither a truerisk.metric.Metric nor a "
        "torchmetrics.Metric"
    )


def _check_needs(metric: Metric, surrogate: Any) -> None:
    """Refuse a metric of probabilities where outputs stand for none."""
    task = surrogate.task
    outputs = task.try_outputs(torch.zeros(()), 2, surrogate.output_size)
    readers = {
        "probabilities": lambda: task.read_probabilities(surrogate, outputs),
        "likelihood": lambda: task.read_likelihoods(surrogate, outputs, task.try_targets(outputs)),
    }
    for need in metric.needs:
        if need in readers and readers[need]() is None:
            raise ConfigError(
                f"metric.{metric.name} needs probabilities, which {task.phrase} with "
                f"loss={surrogate.option} does not give: take loss=cross_entropy or "
                "bce where there are classes, or leave the metric out"
            )
