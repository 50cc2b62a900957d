"""How a run stands between two steps, and what its checkpoint holds of that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from truerisk.core.stop import Stop, StopRule
from truerisk.data import BatchPlan, DataInfo
from truerisk.recipe import Recipe
from truerisk.risk.measured import Measured
from truerisk.scheduler import Schedule

if TYPE_CHECKING:
    from truerisk.engine.measure import RiskEstimator
    from truerisk.engine.recorder import Recorder

_find_version = cache(version)
"""It reads the package's files, a hundredth of a second for each checkpoint."""


class BestWeights(NamedTuple):
    """The weights with the lowest validation risk so far, or the best of what is followed instead.

    Args:
        risk: their validation risk.
        epoch: epochs that were over when it was measured.
        step: optimizer steps that had been taken.
        state: parameters and buffers by name, those of an average where a regularizer keeps one.
        score: the value of ``monitor``, turned so that less is better; None in a checkpoint of the
            versions that followed the risk alone.
    """

    risk: float
    epoch: int
    step: int
    state: dict[str, Tensor]
    score: float | None = None

    @property
    def standing(self) -> float:
        """What others have to fall below."""
        return self.risk if self.score is None else self.score


class StepSums:
    """Running sums over the steps of an epoch, for its mean batch loss and gradient norm."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a new epoch."""
        self.loss_sum, self.samples, self.norm_sum, self.norms = 0.0, 0, 0.0, 0
        self.objective = math.nan  # J when the last step began

    def add_loss(self, mean: float, samples: int) -> None:
        """Add a micro-batch.

        Args:
            mean: the mean loss of its samples.
            samples: how many they are.
        """
        self.loss_sum += mean * samples
        self.samples += samples

    def add_norm(self, norm: float) -> None:
        """Add a gradient norm, as measured before clipping."""
        self.norm_sum += norm
        self.norms += 1

    def means(self) -> dict[str, float]:
        """Return the means so far by name; nothing before the first step."""
        if not self.norms:
            return {}
        return {
            "batch/loss": self.loss_sum / self.samples,
            "grad_norm": self.norm_sum / self.norms,
        }

    def state_dict(self) -> dict[str, float]:
        """Return the sums, so that a run resumed in mid-epoch reports the same means."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up the sums of a run that was cut off."""
        vars(self).update(state)


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        epoch: epochs that are over.
        step_in_epoch: steps taken of the epoch at hand.
        step: optimizer steps taken in all.
        sums: what the epoch's steps have shown.
        best: the best weights, once something has been measured.
        final: what the end of the run measured, by name.
        stop: why it ends before its time.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    sums: StepSums = field(default_factory=StepSums)
    best: BestWeights | None = None
    final: dict[str, Measured] = field(default_factory=dict)
    stop: Stop | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state but for ``final`` and ``stop``, in plain containers and tensors.

        The keys are those of the first version, whose checkpoints are still read.
        """
        return {
            "position": [self.epoch, self.step_in_epoch],
            "step": {"count": self.step, "sums": self.sums.state_dict()},
            "best": None if self.best is None else self.best._asdict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
        self.epoch, self.step_in_epoch = state["position"]
        self.step = state["step"]["count"]
        self.sums.load_state_dict(state["step"]["sums"])
        self.best = None if state["best"] is None else BestWeights(**state["best"])


@dataclass(eq=False)
class TrainingRun:
    """A run in training: its parts, and where it stands.

    Attributes:
        recipe: data, model, loss, regularizers and options.
        plan: which samples every step takes.
        horizon: optimizer steps of the whole run.
        max_epochs: epochs it was given, for those who show its progress.
        optimizer: what moves the weights; its groups hold the numbers of the step to come.
        schedule: what moves those numbers.
        estimator: what measures risks.
        rules: what decides when the run ends.
        recorder: what writes its folder.
        state: where it stands.
        values: what was measured last, by name.
        measured: the epoch that it is of.
    """

    recipe: Recipe
    plan: BatchPlan
    horizon: int
    max_epochs: int | None
    optimizer: Optimizer
    schedule: Schedule
    estimator: RiskEstimator
    rules: list[StopRule]
    recorder: Recorder
    state: RunState = field(default_factory=RunState)
    values: dict[str, float] = field(default_factory=dict)
    measured: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has taken its steps, or a rule has stopped it."""
        return self.state.step >= self.horizon or self.state.stop is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended and its last epoch has been measured."""
        return self.ended and self.state.step_in_epoch == 0

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each group of parameters, by the name it is logged under."""
        groups = enumerate(self.schedule.optimizer.param_groups)
        return {f"lr/{i}": float(group["lr"]) for i, group in groups if "lr" in group}

    def log(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        """Log numbers at the present step.

        Args:
            values: numbers by name.
            epoch: the epoch they belong to; by default the one that has ended last.
        """
        epoch = self.state.epoch if epoch is None else epoch
        self.recorder.log(values, self.state.step, epoch)

    def checkpoint(self, parts: CheckpointParts) -> dict[str, Any]:
        """Return all that a continuation to the same bits needs, as Lightning lays it out.

        Args:
            parts: what the run shares with others, or has spread over processes.
        """
        stop = self.state.stop
        state = self.state.state_dict()
        # `stopped` is all that the first version asks for
        state |= {"stopped": stop is not None, "stop": None if stop is None else stop._asdict()}
        if self.state.final:
            state["final"] = {name: kept._asdict() for name, kept in self.state.final.items()}
        state["step"]["schedule"] = self.schedule.state_dict()
        state["regularizers"] = {k: r.state_dict() for k, r in self.recipe.regularizers.items()}
        state["rng"] = parts.rng
        rules = {rule.key: rule.state_dict() for rule in self.rules}
        return {
            "epoch": self.state.epoch,
            "global_step": self.state.step,
            # Lightning migrates a checkpoint by the version that wrote it
            "pytorch-lightning_version": _find_version("lightning"),
            "state_dict": parts.weights,
            "callbacks": {key: kept for key, kept in rules.items() if kept},
            "optimizer_states": [parts.optimizer],
            # empty, as the schedule is ours, but Lightning asks for the key
            "lr_schedulers": [],
            "hyper_parameters": {
                "config": self.recorder.config,
                "data": plain_info(self.recipe.data.info),
            },
            **parts.more,
            "truerisk": {**state, **parts.own},
        }

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up where ``checkpoint`` left off; weights, optimizer and rng are the backend's."""
        saved = checkpoint["truerisk"]
        self.state.load_state_dict(saved)
        if saved["stopped"]:  # a checkpoint of the first version does not say why
            stop = saved.get("stop") or Stop("patience", self.state.step, {})._asdict()
            self.state.stop = Stop(**stop)
        final = saved.get("final", {})
        # with other options something else is measured
        if final and checkpoint["hyper_parameters"]["config"] == self.recorder.config:
            self.state.final = {name: Measured(**kept) for name, kept in final.items()}
        self.schedule.load_state_dict(saved["step"]["schedule"])
        for name, kept in saved["regularizers"].items():
            self.recipe.regularizers[name].load_state_dict(kept)
        for rule in self.rules:
            if rule.key in checkpoint["callbacks"]:
                rule.load_state_dict(checkpoint["callbacks"][rule.key])


def plain_info(info: DataInfo) -> dict[str, Any]:
    """Return what a model must know of its data in plain containers.

    Args:
        info: what the data has said of itself.
    """
    return {k: list(v) if isinstance(v, tuple) else v for k, v in info._asdict().items()}


class CheckpointParts(NamedTuple):
    """What only a backend can say of a run.

    Args:
        weights: parameters and buffers, by their names in `RiskModule`.
        optimizer: the optimizer's state.
        rng: the random generators, one of each process.
        more: other entries of the checkpoint.
        own: other entries of its part ``truerisk``.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: list[dict[str, Any]]
    more: Mapping[str, Any] = MappingProxyType({})
    own: Mapping[str, Any] = MappingProxyType({})
