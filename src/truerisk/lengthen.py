"""A finished run trained on: whether its schedule allows it, and what it needs for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from truerisk.core.atomic_files import replacing, write_atomic
from truerisk.core.errors import ConfigError
from truerisk.core.stop import read_stop
from truerisk.core.yaml_files import format_yaml
from truerisk.logger.history import HEADER, read_rows, row_name
from truerisk.logger.label import find_study
from truerisk.run import RunFolder, rank

if TYPE_CHECKING:
    from truerisk.recipe import Recipe


class Lengthening:
    """New limits of a run that has ended, or was cut off.

    ``truerisk train resume=FOLDER trainer.max_epochs=200`` is to give what 200 epochs would have
    given from the start. That holds where nothing in the run was spread over its old length.

    Args:
        run: its folder.
        limits: ``max_epochs``, ``max_steps`` or ``max_time``, as they are to be.

    Raises:
        ConfigError: the run ended for another reason than its length, is a cell of a sweep, or the
            limits are no longer ones.
    """

    def __init__(self, run: RunFolder, limits: Mapping[str, Any]) -> None:
        self.run, self.limits = run, dict(limits)
        self.config = run.load_config()
        status = run.status()
        self.finished = status.get("status") == "finished"
        self.stop = read_stop(status)
        self._check_end(status)
        self.before = (self.config.trainer.max_epochs, self.config.trainer.max_steps)
        for key, value in self.limits.items():
            old = self.config.trainer.get(key)
            whole = isinstance(value, int) and not isinstance(value, bool)
            # the first process has written it before it starts the others
            written = rank() > 0 and value == old
            longer = whole and (value > (old or 0) or value == -1)
            if key != "max_time" and not (longer or written):
                raise ConfigError(
                    f"resume: trainer.{key}={value} does not lengthen the run in {run.path}, which "
                    f"has trainer.{key}={old}"
                )
            self.config.trainer[key] = value

    def _check_end(self, status: Mapping[str, Any]) -> None:
        if study := find_study(self.run.path):
            raise ConfigError(
                f"resume: {self.run.path} is a cell of the study {study}, and is named after the "
                "limits it has: give the sweep with the new ones"
            )
        if status.get("status") == "diverged":
            raise ConfigError(
                f"resume: the run in {self.run.path} has diverged: it has no more to go"
            )
        early = self.finished and self.stop is not None and self.stop.kind != "time"
        if early and self.stop is not None:
            why = self.stop.describe() or "early stopping"
            raise ConfigError(
                f"resume: the run in {self.run.path} ended before its length ({why}), which a "
                "longer one would not change"
            )
        if not self.run.last.exists():
            raise ConfigError(f"resume: {self.run.path} has no checkpoint to go on from")

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse to go on where a part of the recipe was spread over the old length.

        Args:
            recipe: the run's parts; as they are.

        Raises:
            ConfigError: with the part, and what it depends on.
        """
        from truerisk.engine.lightning import count_steps

        each = recipe.plan().steps_per_epoch
        trainer = self.config.trainer
        old, new = (
            count_steps(each, *limits)
            for limits in (self.before, (trainer.max_epochs, trainer.max_steps))
        )
        if self.finished and old % each and new > old:
            raise ConfigError(
                f"resume: the run in {self.run.path} ended within an epoch, after {old} steps of "
                f"{each} an epoch; a longer one would have gone through the rest of it"
            )
        schedules = [recipe.schedule(recipe.optimizer(recipe.model), n) for n in (old, new)]
        (first, second) = ([s.warmup, s.lengths] for s in schedules)
        if first != second:
            name = self.config.choices.get("scheduler") or self.config.scheduler._target_
            raise ConfigError(
                f"resume: scheduler={name} was spread over the {old} steps of the run, and over "
                f"{new} it would have had other rates from the start: train anew, or begin another "
                f"run with its weights (initializer=pretrained initializer.path={self.run.path})"
            )
        for name, regularizer in recipe.regularizers.items():
            regularizer.start(old, each)
            parts = plain_numbers(regularizer)
            regularizer.start(new, each)
            if plain_numbers(regularizer) != parts:
                raise ConfigError(
                    f"resume: regularizer={name} begins at a share of the run, which would have "
                    f"been another of {new} steps than of {old}: train anew"
                )

    def apply(self) -> None:
        """Write the new limits, and take back what only the end had measured."""
        write_atomic(self.run.config, format_yaml(self.config))
        from truerisk.engine.measure import is_final

        names = (
            (row, row_name(row).removesuffix("/stderr")) for row in read_rows(self.run.metrics)
        )
        rows = [row for row, name in names if not is_final(name)]
        with replacing(self.run.metrics) as part:
            part.write_bytes(HEADER + b"".join(rows))

    def reopen_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Forget in a checkpoint that time had run out.

        Args:
            checkpoint: as it was read; changed in place.
        """
        # not by the status, which the first of several processes has begun anew
        stop = checkpoint["truerisk"].get("stop")
        if stop and stop["kind"] == "time":
            checkpoint["truerisk"] |= {"stop": None, "stopped": False}


def plain_numbers(part: Any) -> dict[str, Any]:
    """Return the numbers among an object's attributes."""
    return {k: v for k, v in vars(part).items() if isinstance(v, int | float)}


def read_lengthening(cfg: DictConfig, run: RunFolder) -> Lengthening | None:
    """Read the limits that ``resume`` came with; None where it came alone.

    Args:
        cfg: of the command.
        run: the folder that it names.
    """
    limits = cfg.get("lengthen")
    if not limits:
        return None
    return Lengthening(run, {str(key): value for key, value in limits.items()})
