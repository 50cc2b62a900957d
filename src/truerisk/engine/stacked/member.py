"""One member of a group: the parts of its run, and how they stand between two steps."""

from __future__ import annotations

import json
from collections import UserDict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from truerisk.assemble import assemble
from truerisk.core import rng
from truerisk.engine.halving import Halving
from truerisk.engine.lightning import Best
from truerisk.engine.stacked.place import Place
from truerisk.engine.step import StepSums
from truerisk.fit import deciding
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder

SPLITS = ("train", "val", "test")


class Member:
    """The objects of an ordinary run: recipe, optimizer, schedule, callbacks.

    While a member trains, its weights and its optimizer's tensors are rows of a stack. Everything
    else a step needs of it is here: the optimizer's groups hold its numbers, its schedule moves
    them, and its callbacks decide when it stops.
    """

    def __init__(self, cfg: DictConfig, run: RunFolder, place: Place) -> None:
        self.cfg, self.run, self.place = cfg, run, place
        self.recipe = assemble(cfg)
        self.recipe.model.to(place.device, place.dtype)
        self.recipe.surrogate.to(place.device, place.dtype)
        for name in self.splits():
            split = getattr(self.recipe.data, name).to(place.device, place.dtype)
            setattr(self.recipe.data, name, split)
        self.plan = self.recipe.plan()
        self.horizon = self._total_steps()
        for regularizer in self.recipe.regularizers.values():
            regularizer.start(self.horizon, self.plan.steps_per_epoch)
        self.optimizer = self.recipe.optimizer(self.recipe.model)
        self.schedule = self.recipe.schedule(self.optimizer, self.horizon)
        self.epoch, self.step_in_epoch, self.count = 0, 0, 0
        self.best: Best | None = None
        self.final: dict[str, Measured] = {}
        self.sums = StepSums()
        self.noise = torch.Generator().manual_seed(self.recipe.streams.noise).get_state()
        self.masks: dict[str, Any] | None = None
        self.trainer = _trainer(cfg, self)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups, with the numbers of the step to come."""
        return self.schedule.optimizer.param_groups

    @property
    def data_key(self) -> str:
        """The same for members with the same data."""
        data = OmegaConf.to_container(self.cfg.data, resolve=True)
        options = self.recipe.risk.train_samples
        return json.dumps([data, self.recipe.streams.data, options], default=str)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The same for members of one block: sizes of the data, and where they stand."""
        sizes = [len(getattr(self.recipe.data, name)) for name in self.splits()]
        where = self.epoch, self.step_in_epoch, self.count, self.horizon
        return (*sizes, *self.splits(), *self.recipe.data.info[:3], *where)

    @property
    def take_step(self) -> Any:
        """What callbacks read of an ordinary run's step."""
        return SimpleNamespace(sums=self.sums, count=self.count)

    def splits(self) -> list[str]:
        """The splits there are."""
        return [name for name in SPLITS if getattr(self.recipe.data, name) is not None]

    def _total_steps(self) -> int:
        epochs, steps = self.cfg.trainer.max_epochs, self.cfg.trainer.max_steps
        limits = [] if steps < 0 else [steps]
        if epochs is not None and epochs >= 0:
            limits.append(epochs * self.plan.steps_per_epoch)
        return min(limits)

    # --- callbacks ----------------------------------------------------------------------------

    def watch(self, values: Mapping[str, float]) -> None:
        """Show what was measured to the callbacks that read it."""
        if self.trainer.callbacks:
            self.trainer.callback_metrics.update(values)

    def call(self, hook: str, monitors: bool | None = None) -> None:
        """Call the callbacks, or those that monitor a measured value, or the others."""
        from lightning.pytorch.callbacks import EarlyStopping

        for callback in self.trainer.callbacks:
            if monitors is None or isinstance(callback, EarlyStopping) == monitors:
                getattr(callback, hook)(self.trainer, self)

    def come(self) -> None:
        """Let halving know of a measured risk, before it compares any of those measured with it."""
        for callback in self.trainer.callbacks:
            if isinstance(callback, Halving):
                callback.come(self.trainer, self)

    # --- checkpoints --------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, Any]:
        """The run as `truerisk.engine.checkpoint` saves an ordinary one, from the member's parts.

        Its weights and its optimizer's state must have been brought back from the stack.
        """
        import lightning

        parts = {"model": self.recipe.model, "surrogate": self.recipe.surrogate}
        weights = {f"{p}.{k}": t for p, m in parts.items() for k, t in m.state_dict().items()}
        callbacks = {c.state_key: c.state_dict() for c in self.trainer.callbacks}
        return {
            "epoch": self.epoch,
            "global_step": self.count,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": weights,
            "callbacks": {key: state for key, state in callbacks.items() if state},
            "optimizer_states": [self.optimizer.state_dict()],
            "lr_schedulers": [],
            "truerisk": self._state(),
        }

    def _state(self) -> dict[str, Any]:
        with rng.fork_seeded(self.recipe.streams.noise):
            streams = {**rng.get_state(), "torch": self.noise}
        sums, schedule = self.sums.state_dict(), self.schedule.state_dict()
        return {
            "position": [self.epoch, self.step_in_epoch],
            "step": {"count": self.count, "sums": sums, "schedule": schedule},
            "regularizers": {k: r.state_dict() for k, r in self.recipe.regularizers.items()},
            "rng": [streams],
            "best": None if self.best is None else self.best._asdict(),
            "stopped": self.trainer.should_stop,
            "masks": self.masks,
        }

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up a run where its checkpoint left it."""
        saved = checkpoint["truerisk"]
        own = {k: t for k, t in checkpoint["state_dict"].items() if k.startswith("model.")}
        weights = {k.removeprefix("model."): t for k, t in own.items()}
        self.recipe.model.load_state_dict(weights)
        self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        self.epoch, self.step_in_epoch = saved["position"]
        self.count = saved["step"]["count"]
        self.sums.load_state_dict(saved["step"]["sums"])
        self.schedule.load_state_dict(saved["step"]["schedule"])
        for name, state in saved["regularizers"].items():
            self.recipe.regularizers[name].load_state_dict(state)
        self.noise, self.masks = saved["rng"][0]["torch"], saved.get("masks")
        self.best = None if saved["best"] is None else Best(**saved["best"])
        self.trainer.should_stop = saved["stopped"]
        for callback in self.trainer.callbacks:
            if callback.state_key in checkpoint["callbacks"]:
                callback.load_state_dict(checkpoint["callbacks"][callback.state_key])

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name."""
        return dict(self.recipe.model.state_dict(keep_vars=True))


class Shown(UserDict[str, Any]):
    """What was measured, as the tensors that Lightning's callbacks read: made as they are read."""

    def __getitem__(self, name: str) -> Tensor:
        """The same tensor each time, until the value is measured anew."""
        value = self.data[name]
        if not isinstance(value, Tensor):
            value = self.data[name] = torch.tensor(value)
        return value


def _trainer(cfg: DictConfig, member: Member) -> Any:
    """What a run's callbacks need of Lightning's Trainer."""
    from lightning.pytorch.trainer.states import TrainerFn

    return SimpleNamespace(
        callbacks=deciding(cfg, member.recipe, member.run.path),
        callback_metrics=Shown(),
        should_stop=False,
        current_epoch=0,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        sanity_checking=False,
        fast_dev_run=False,
        is_global_zero=True,
        strategy=SimpleNamespace(
            reduce_boolean_decision=lambda decision, all: decision, broadcast=lambda value: value
        ),
    )
