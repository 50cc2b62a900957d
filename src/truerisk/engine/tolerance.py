"""Stopping a deterministic problem once it is solved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig

from truerisk.config.options import StopOptions
from truerisk.core.errors import ConfigError

if TYPE_CHECKING:
    from truerisk.engine.lightning import RiskModule
    from truerisk.recipe import Recipe


class Tolerance(Callback):
    """Ends a run on the whole training set at the tolerance ε that ``stop`` sets:

        ‖∇J(w)‖ ≤ ε                        ``gradient_norm``
        (J(w₋) − J(w)) / |J(w)| ≤ ε        ``relative_decrease``

    w are the weights that the epoch's step began with, w₋ those of the epoch before; both numbers
    are what the step has computed anyway. Where J has risen, as it may for a fixed step length,
    nothing is decided. ``reason`` says what ended the run.

    Raises:
        ConfigError: the recipe uses mini-batches, whose gradient does not vanish at a minimum, or
            an optimizer that takes no gradient.
    """

    def __init__(self, recipe: Recipe, options: StopOptions) -> None:
        self.options, self.reason = options, ""
        self.before: float | None = None
        if not recipe.plan().full:
            raise ConfigError(
                "stop.gradient_norm and stop.relative_decrease compare the objective on the whole "
                "training set: set data.batch_size=full, or leave them out"
            )
        if not recipe.needs.gradient:
            raise ConfigError(
                "stop.gradient_norm and stop.relative_decrease need an optimizer that computes "
                "gradients: leave them out, or choose another"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Decide; the module then measures the last epoch in any case."""
        module: RiskModule = pl_module
        norm, objective = module.take_step.sums.norm_sum, module.take_step.sums.objective
        least = self.options.gradient_norm
        if least is not None and norm <= least:
            self.reason = f"‖∇J‖ = {norm:.3g} is at most stop.gradient_norm={least:g}"
        self._compare(objective)
        trainer.should_stop = trainer.should_stop or bool(self.reason)

    def _compare(self, objective: float) -> None:
        share = self.options.relative_decrease
        if share is not None and self.before is not None:
            fallen = self.before - objective
            if 0 <= fallen <= share * abs(objective):
                self.reason = (
                    f"J fell by {fallen:.3g} to {objective:.6g}, "
                    f"a share of at most stop.relative_decrease={share:g}"
                )
        self.before = objective

    def state_dict(self) -> dict[str, Any]:
        """What decides in a run that is taken up again."""
        return {"before": self.before, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where ``state_dict`` left off."""
        self.before, self.reason = state_dict["before"], state_dict["reason"]


def tolerances(cfg: DictConfig, recipe: Recipe) -> list[Tolerance]:
    """The callback for a configuration's ``stop``, if that asks for anything."""
    options = StopOptions(**cfg.get("stop", {}))
    return [] if options == StopOptions() else [Tolerance(recipe, options)]


def reached(trainer: Trainer) -> str:
    """Why a run stopped before its time; empty where it did not."""
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    found = [c.reason for c in callbacks if getattr(c, "reason", "")]
    return found[0] if found else ""
