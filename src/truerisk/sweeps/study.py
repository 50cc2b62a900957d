"""A study: the folder that holds the runs of a sweep, each under the name of its cell."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from truerisk.core.errors import ConfigError
from truerisk.sweeps.cell import Cell
from truerisk.sweeps.compose import Composer
from truerisk.sweeps.identity import fingerprint, slug

NAME = re.compile(r"[\w+=-][\w.+=,-]*")


@dataclass(frozen=True)
class Study:
    """Cells below one folder.

    Attributes:
        folder: of the study.
        compose: makes a configuration of a cell's overrides.
        shared: overrides that all cells of the command have.
    """

    folder: Path
    compose: Composer
    shared: Collection[str] = ()

    def cells(self, points: Sequence[Sequence[str]]) -> list[Cell]:
        """Compose a cell for each list of overrides; equal configurations have one folder.

        Raises:
            ConfigError: an override names an option that there is none of, or a key that no cell
                has.
        """
        known, failed = dict(self._folders()), []
        made = []
        for point in points:
            cell, error = self._cell(tuple(point), known)
            made.append(cell)
            failed += [error] if error and isinstance(error.__cause__, HydraException) else []
        if failed and len(failed) == len(points):
            raise failed[0]
        return made

    def _folders(self) -> Iterator[tuple[str, Path]]:
        """Folders that exist, by the hash their names end in, whatever they begin with."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                yield path.name.rpartition("-")[2], path

    def _cell(
        self, overrides: tuple[str, ...], known: Mapping[str, Path]
    ) -> tuple[Cell, ConfigError | None]:
        varied = tuple(o for o in overrides if o not in self.shared)
        name = slug(varied or overrides)
        try:
            config, hydra = self.compose(overrides)
        except ConfigError as error:
            if isinstance(error.__cause__, MissingConfigException):
                raise
            return Cell(overrides, varied, {}, self.folder / name, problem=str(error)), error
        mark = fingerprint(config)
        folder = known.get(mark, self.folder / f"{name}-{mark}")
        return Cell(overrides, varied, config, folder, hydra), None


def distinct(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, those of one folder once."""
    return list({cell.folder: cell for cell in cells}.values())


def placed(config: Mapping[str, Any], folder: Path, overrides: Sequence[str]) -> Path:
    """A job's folder: the cell's own, where a sweeper of others has numbered it."""
    mark = fingerprint(config)
    if folder.name.endswith(f"-{mark}"):
        return folder
    with contextlib.suppress(OSError):  # Hydra made it
        folder.rmdir()
    return folder.with_name(f"{slug(overrides)}-{mark}")


def study_name(shared: DictConfig, axes: Sequence[Override]) -> str:
    """The name given with ``study=``, or one that the same command gives again.

    That is the experiment's, where one is chosen, else the swept keys joined:
    ``-m optimizer=sgd,adam seed=1,2`` goes to ``outputs/optimizer+seed``.

    Raises:
        ConfigError: it is no name for a folder.
    """
    if shared.get("study") is not None:
        return valid(str(shared.study))
    experiment = shared.hydra.runtime.choices.get("experiment")
    swept = [axis.key_or_group for axis in axes]
    swept = [key.removesuffix(".base") if key == "seed.base" else key for key in swept]
    if experiment not in (None, "default", "[]") and "experiment" not in swept:
        return slug([str(experiment)])
    return "+".join(slug([key]) for key in swept) or "study"


def valid(name: str) -> str:
    """The name, if it can be a folder's.

    >>> valid("a/b")
    Traceback (most recent call last):
    truerisk.core.errors.ConfigError: study=a/b is no name: use letters, digits and . _ + - = ,
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"study={name} is no name: use letters, digits and . _ + - = ,")
    return name
