"""A study: the folder that holds the runs of a sweep, each under the name of its cell."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from truerisk.core.errors import ConfigError, UserError
from truerisk.sweeps.cell_composer import CellComposer
from truerisk.sweeps.sweep_cell import SweepCell, hash_config, make_slug

NAME = re.compile(r"[\w+=-][\w.+=,-]*")


@dataclass(frozen=True)
class StudyFolder:
    """Cells below one folder.

    Attributes:
        folder: of the study.
        compose: makes a configuration of a cell's overrides.
        shared: overrides that all cells of the command have.
    """

    folder: Path
    compose: CellComposer
    shared: Collection[str] = ()

    def cells(self, points: Sequence[Sequence[str]]) -> list[SweepCell]:
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
    ) -> tuple[SweepCell, ConfigError | None]:
        varied = tuple(o for o in overrides if o not in self.shared)
        name = make_slug(varied or overrides)
        try:
            config, hydra = self.compose(overrides)
        except ConfigError as error:
            if isinstance(error.__cause__, MissingConfigException):
                raise
            return SweepCell(overrides, varied, {}, self.folder / name, problem=str(error)), error
        mark = hash_config(config)
        folder = known.get(mark, self.folder / f"{name}-{mark}")
        return SweepCell(overrides, varied, config, folder, hydra), None


def unique_cells(cells: Sequence[SweepCell]) -> list[SweepCell]:
    """The cells, those of one folder once."""
    return list({cell.folder: cell for cell in cells}.values())


def place_cell(config: Mapping[str, Any], folder: Path, overrides: Sequence[str]) -> Path:
    """A job's folder: the cell's own, where a sweeper of others has numbered it."""
    mark = hash_config(config)
    if folder.name.endswith(f"-{mark}"):
        return folder
    with contextlib.suppress(OSError):  # Hydra made it
        folder.rmdir()
    return folder.with_name(f"{make_slug(overrides)}-{mark}")


def study_name(shared: DictConfig, axes: Sequence[Override]) -> str:
    """The name given with ``study=``, or one that the same command gives again.

    That is the experiment's, where one is chosen, else the swept keys joined:
    ``-m optimizer=sgd,adam seed=1,2`` goes to ``outputs/optimizer+seed``.

    Raises:
        ConfigError: it is no name for a folder.
    """
    if shared.get("study") is not None:
        return check_study_name(str(shared.study))
    experiment = shared.hydra.runtime.choices.get("experiment")
    swept = [axis.key_or_group for axis in axes]
    swept = [key.removesuffix(".base") if key == "seed.base" else key for key in swept]
    if experiment not in (None, "default", "[]") and "experiment" not in swept:
        return make_slug([str(experiment)])
    return "+".join(make_slug([key]) for key in swept) or "study"


def check_study_name(name: str) -> str:
    """The name, if it can be a folder's.

    >>> check_study_name("a/b")
    Traceback (most recent call last):
    truerisk.core.errors.ConfigError: study=a/b is no name: use letters, digits and . _ + - = ,
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"study={name} is no name: use letters, digits and . _ + - = ,")
    return name


def validate_cells(cells: Sequence[SweepCell]) -> Iterator[SweepCell]:
    """The cells, each with its ``problem``: against signatures, and combinations ruled out.

    Of cells that differ in nothing but their seeds, one is looked at.
    """
    known: dict[str, str] = {}
    for cell in cells:
        if not cell.problem:
            kind = _kind(cell.config)
            if kind not in known:
                known[kind] = _problem(cell)
            cell = replace(cell, problem=known[kind]) if known[kind] else cell
        yield cell


def _kind(config: Mapping[str, Any]) -> str:
    """A configuration without the seeds that are in order."""
    seeds = {key: None if _is_seed(value) else value for key, value in config["seed"].items()}
    return json.dumps({**config, "seed": seeds}, sort_keys=True, default=str)


def _is_seed(value: Any) -> bool:
    return type(value) is int and value >= 0


def _problem(cell: SweepCell) -> str:
    from truerisk.assemble import refuse
    from truerisk.config.check import check_config

    try:
        check_config(cell.config)
        refuse(cell.cfg)
    except UserError as error:
        return str(error)
    return ""
