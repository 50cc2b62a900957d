"""Which Lightning callbacks work beside our step, and what says the same where one cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from truerisk.config.options import TrainerOptions
from truerisk.core.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch import Callback

INSTEAD = {
    "StochasticWeightAveraging": "choose regularizer=swa",
    "WeightAveraging": "choose regularizer=ema or regularizer=swa",
    "GradientAccumulationScheduler": "set step.accumulate",
    "BatchSizeFinder": "set data.batch_size",
    "LearningRateFinder": "take diagnostics=[lr_range], or optimizer.lr=1e-4,1e-3,1e-2 --multirun",
    "BaseFinetuning": "freeze or slow down layers by param_groups.rules",
    "ModelPruning": "choose regularizer=l1, or prune the trained model",
}
"""By the name of a callback's class, or of one above it, what does its work."""
HERE_INSTEAD = {
    "OnExceptionCheckpoint": "leave it out: a run saves itself, and resume=FOLDER goes on with it",
}
"""The same for callbacks that work under a Trainer of one's own."""

NEVER = (
    *("on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_before_zero_grad"),
)
"""Hooks between the parts of a step, which is taken as a whole."""
ELSEWHERE = ("on_test", "on_predict", "on_sanity_check")
"""Beginnings of hooks that no training calls."""
CHECKPOINTS = ("on_save_checkpoint", "on_load_checkpoint")
"""Hooks of Lightning's checkpoints, which those of a run are not."""

SERVED = ("_target_", *(field.name for field in fields(TrainerOptions)))
"""Arguments of a Trainer that our own loop serves; others need Lightning's."""


def list_hooks(callback: Callback) -> list[str]:
    """List the hooks that a callback overrides, in its class or on itself.

    Args:
        callback: any.
    """
    from lightning.pytorch import Callback

    def is_own(name: str) -> bool:
        method = getattr(callback, name)
        return getattr(method, "__func__", method) is not getattr(Callback, name)

    return [name for name in vars(Callback) if name.startswith("on_") and is_own(name)]


def refuse_callbacks(callbacks: Iterable[Callback], hosted: bool = False) -> None:
    """Refuse callbacks that would have no effect, or a wrong one.

    Args:
        callbacks: those of a Trainer.
        hosted: whether it trains alone, and never tests or predicts.

    Raises:
        ConfigError: in one line, with the callback, the reason and what to write instead.
    """
    for callback in callbacks:
        from lightning.pytorch import Callback  # a run without any does without Lightning

        kind = type(callback).__name__
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks: {kind} is no Lightning callback")
        instead = {**INSTEAD, **(HERE_INSTEAD if hosted else {})}
        names = [base.__name__ for base in type(callback).__mro__]
        for name in (name for name in names if name in instead):
            raise ConfigError(f"the callback {kind} cannot work here: {instead[name]}")
        # ModelCheckpoint never looks at the clock where a module steps its optimizer itself
        if getattr(callback, "_train_time_interval", None) is not None:
            raise ConfigError(
                f"{kind}(train_time_interval=…) would save nothing here: give every_n_train_steps; "
                "truerisk train itself saves every checkpoint_seconds"
            )
        hooks = list_hooks(callback)
        for hook in (hook for hook in hooks if hook in NEVER):
            raise ConfigError(
                f"the callback {kind} overrides {hook}, which is never called: a step is taken as "
                "a whole; use on_train_batch_start or on_train_batch_end"
            )
        if hosted and hooks and all_elsewhere(hooks):
            raise ConfigError(
                f"the callback {kind} overrides {hooks[0]}, which training never calls: fit "
                "truerisk.build_module([…]) by a lightning.Trainer of your own, and test that"
            )


def describe_uncalled(callbacks: Iterable[Callback]) -> Iterator[str]:
    """Describe, in a line each, which hooks of somebody's own callbacks a run does not call.

    Args:
        callbacks: those of a run.
    """
    for callback in callbacks:
        name, module = type(callback).__name__, type(callback).__module__
        if module.startswith(("lightning.", "pytorch_lightning.")) and name != "LambdaCallback":
            continue  # made for any loop
        hooks = list_hooks(callback)
        if uncalled := [hook for hook in hooks if hook.startswith(ELSEWHERE)]:
            yield (
                f"the callback {name}: {', '.join(uncalled)} will not be called, as a run trains "
                "and measures; test by a Trainer of your own (docs/lightning.md)"
            )
        if left_out := [hook for hook in hooks if hook in CHECKPOINTS]:
            yield (
                f"the callback {name}: {', '.join(left_out)} will not be called for the run's own "
                "checkpoints, which hold what its state_dict returns"
            )


def find_reason(callbacks: Sequence[Callback], trainer: Mapping[str, Any]) -> str:
    """Say why a run needs a Trainer of Lightning's; empty where our own loop does.

    Args:
        callbacks: those asked for.
        trainer: the ``trainer`` node of a configuration.
    """
    if callbacks:
        return f"the callback {type(callbacks[0]).__name__}"
    unserved = [key for key, value in trainer.items() if key not in SERVED and value is not None]
    return f"trainer.{unserved[0]}" if unserved else ""


def shows_progress(callbacks: Sequence[Callback], trainer: Mapping[str, Any]) -> bool:
    """Tell whether Lightning is asked for a progress bar, or for none at all.

    Args:
        callbacks: those asked for.
        trainer: the ``trainer`` node of a configuration.
    """
    if trainer.get("enable_progress_bar") is not None:
        return True
    names = (base.__name__ for callback in callbacks for base in type(callback).__mro__)
    return "ProgressBar" in names


def all_elsewhere(hooks: Sequence[str]) -> bool:
    """Tell whether no training calls any of some hooks.

    Args:
        hooks: their names.
    """
    return all(hook.startswith(ELSEWHERE) for hook in hooks)
