"""What a run is made of, once its configuration has been turned into objects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from truerisk.config.options import RiskOptions, StepOptions
from truerisk.core.deterministic import refuses_single
from truerisk.core.errors import ConfigError, suggest
from truerisk.core.seeds import Streams
from truerisk.data import BatchPlan
from truerisk.metric.metric import Metric
from truerisk.optimizer import Needs
from truerisk.regularizer.base import Regularizer

if TYPE_CHECKING:
    from truerisk.data import RunData
    from truerisk.loss import Surrogate
    from truerisk.scheduler import Schedule


@dataclass(frozen=True)
class Recipe:
    """The parts of a run; ``optimizer`` and ``schedule`` are factories, as both need the others."""

    data: RunData
    model: nn.Module
    surrogate: Surrogate
    regularizers: dict[str, Regularizer]
    optimizer: Callable[[nn.Module], Optimizer]
    needs: Needs
    schedule: Callable[[Optimizer, int], Schedule]
    step: StepOptions
    risk: RiskOptions
    streams: Streams
    metrics: dict[str, Metric] = field(default_factory=dict)
    monitor: str = "risk/val"

    def measured_names(self) -> list[str]:
        """List what is measured after each epoch that may be followed."""
        names = ["risk/val", "risk/train", "risk/gap", "objective"]
        if self.surrogate.task.error_title is not None:
            names += ["error/val", "error/train"]
        for name, metric in self.metrics.items():
            ends = [f"{part}/val" if part else "val" for part in metric.parts if metric.each_epoch]
            names += [f"metric/{name}/{end}" for end in ends]
        return names

    def check_monitor(self) -> None:
        """Refuse to follow what is not measured, or has no better and worse.

        Raises:
            ConfigError: with the nearest name there is.
        """
        known = self.measured_names()
        if self.monitor not in known:
            raise ConfigError(
                f"monitor={self.monitor} is not measured; {suggest(self.monitor, known)}"
            )
        if self.monitor.startswith("metric/"):
            name = self.monitor.split("/")[1]
            metric = self.metrics[name]
            if metric.higher_is_better is None:
                remedy = "follow another"
                kind = type(getattr(metric, "metric", metric))
                library = kind.__module__.partition(".")[0]
                if library not in ("builtins", "truerisk", "torchmetrics"):
                    remedy = f"set higher_is_better = True (or False) in the class {kind.__name__}"
                raise ConfigError(
                    f"monitor={self.monitor}: the metric does not say whether higher is better; "
                    f"{remedy}"
                )

    def orient(self, name: str, value: float) -> float:
        """Turn a measured value so that less is better; one that is no number is the worst.

        Args:
            name: of the value, such as ``metric/f1/val``.
            value: as it was measured.
        """
        if math.isnan(value):
            return math.inf
        head, _, rest = name.partition("/")
        metric = self.metrics.get(rest.partition("/")[0]) if head == "metric" else None
        if metric is not None and metric.higher_is_better:
            return -value
        return value

    def plan(self, rank: int = 0, world: int = 1) -> BatchPlan:
        """The order of the training batches, for one of ``world`` processes."""
        n, size, accumulate = self.data.num_train, self.data.batch_size, self.step.accumulate
        draws = self.data.sampling_chances()
        plan = BatchPlan(n, size, accumulate, self.streams.order, rank, world, draws=draws)
        # a process gets every world-th sample of a micro-batch
        if plan.smallest < 2 * world and self.data.train is not None:
            sample = next(self.data.train.batches([torch.arange(1)])).x
            if refuses_single(self.model, sample):
                least = 2 * world
                return BatchPlan(n, size, accumulate, self.streams.order, rank, world, least, draws)
        return plan

    def hooks(self, name: str) -> dict[str, Any]:
        """The regularizers' own versions of one hook, by the regularizer's name."""
        default = getattr(Regularizer, name)
        overridden = {
            k: r for k, r in self.regularizers.items() if getattr(type(r), name) is not default
        }
        return {k: getattr(r, name) for k, r in overridden.items()}

    def facts(self) -> dict[str, Any]:
        """What a run's folder records of it beside the configuration."""
        facts: dict[str, Any] = {
            "seeds": self.streams._asdict(),
            "data": self.data.info._asdict(),
            "parameters": count_trained(self.model),
        }
        if self.data.packer is not None:
            # Python's own reference is another text in another version
            facts["text"] = self.data.packer.describe_texts()
        if numbers := self.surrogate.find_training_numbers():
            # earlier versions, which say nothing here, measured with them
            facts["measured_without"] = sorted(numbers)
        if self.metrics:
            facts["metrics"] = {name: m.higher_is_better for name, m in self.metrics.items()}
        if self.monitor != "risk/val":
            higher = self.orient(self.monitor, 1.0) < 0
            facts["monitor"] = {"name": self.monitor, "higher_is_better": higher}
        for name in self.metrics:
            tables = getattr(self.metrics[name], "class_names", None)
            if tables is not None:
                facts.setdefault("table_classes", {})[name] = tables
        return facts


def count_trained(model: nn.Module) -> int:
    """Count the numbers that training moves: frozen ones do not count, tied ones do once.

    >>> count_trained(nn.Linear(4, 3)), count_trained(nn.Linear(4, 3).requires_grad_(False))
    (15, 0)
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
