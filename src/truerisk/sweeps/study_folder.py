"""A study: the folder that holds the runs of a sweep, each under the name of its cell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from truerisk.config.cell_composer import CellComposer
from truerisk.config.contents import Known, hash_contents, list_changed
from truerisk.core.errors import ConfigError, UserError
from truerisk.core.yaml_files import YamlLoader
from truerisk.run import RunFolder
from truerisk.sweeps.locks import find_begun
from truerisk.sweeps.sweep_cell import (
    DONE,
    IGNORED,
    LONGEST_SLUG,
    SweepCell,
    hash_config,
    list_telling_keys,
    make_slug,
)

MOST_CONFIGS = 30
"""Runs of a study that are looked at for the data they are on."""
LONGEST_STUDY = 100
"""Characters of a name that is made for a study."""
STUDY_NAME = re.compile(r"[\w+=-][\w.+=,-]*")


@dataclass(frozen=True)
class StudyFolder:
    """Cells below one folder.

    Attributes:
        folder: of the study.
        compose: makes a configuration of a cell's overrides.
        shared: overrides that all cells of the command have.
        partial: whether a batch is not the whole sweep, so that all of it may fail by bad luck.
    """

    folder: Path
    compose: CellComposer
    shared: Collection[str] = ()
    partial: bool = False

    def compose_cells(self, points: Sequence[Sequence[str]]) -> list[SweepCell]:
        """Compose a cell for each point; equal configurations have one folder.

        Args:
            points: the overrides of each cell.

        Returns:
            A cell for each point; one that cannot be composed has a ``problem``.

        Raises:
            ConfigError: an override names an option that there is none of, or a key that no cell
                has.
        """
        # only the hash counts: a cell has its folder again however it was asked for
        folders: dict[str, Path] = {}
        if self.folder.is_dir():
            folders = {path.name.rpartition("-")[2]: path for path in self.folder.iterdir()}
        self.compose.compose_ahead(points)
        known: Known = {}  # files are read anew by each command, and once by it
        telling = list_telling_keys(points)
        cells, errors = [], []
        for point in points:
            cell, error = self._compose_cell(tuple(point), folders, known, telling)
            cells.append(cell)
            if not cell.problem:  # a value that is written in two ways is one cell
                folders.setdefault(cell.digits, cell.folder)
            if error is not None and isinstance(error.__cause__, HydraException):
                errors.append(error)
        if errors and len(errors) == len(points) and not self.partial:
            raise errors[0]  # a key that no cell has is a slip, too
        return cells

    def describe_other_data(self, cells: Sequence[SweepCell]) -> Iterator[str]:
        """Say that the study holds runs on other data alone than the cells that are to join them.

        Args:
            cells: those that are not done.
        """
        now = dict.fromkeys(_name_data(cell.config) for cell in cells if cell.config)
        if not now:
            return
        files = sorted(self.folder.glob("*/config.yaml"))[:MOST_CONFIGS]
        before = dict.fromkeys(_name_data(_read_yaml(file)) for file in files)
        before.pop("", None)
        if before and not set(before) & set(now):
            yield (
                f"{self.folder} holds runs on {', '.join(before)}: those on {', '.join(now)} join "
                "them, as another problem of the report; study=NAME gives them a folder of its own"
            )

    def _compose_cell(
        self,
        overrides: tuple[str, ...],
        folders: Mapping[str, Path],
        known: Known,
        telling: Collection[str],
    ) -> tuple[SweepCell, ConfigError | None]:
        """Compose one cell; with a problem, and the error that tells it, where that cannot be."""
        varied = tuple(override for override in overrides if override not in self.shared)
        try:
            config, hydra = self.compose(overrides)
        except ConfigError as error:
            # an option that does not exist is a slip in the command, and stops all of it; a key
            # that only some options have may be meant for those
            if isinstance(error.__cause__, MissingConfigException):
                raise
            bare = self.folder / make_slug(varied or overrides, telling)
            cell = SweepCell(overrides, varied, {}, bare, problem=str(error))
            return cell, error
        digits = hash_config(config)
        changed: list[str] = []
        if digits in folders:
            contents = hash_contents(config, known)
            changed = _list_changed_since(folders[digits], contents)
            if changed:
                digits = hash_config(config, contents)
        folder = folders.get(digits)
        if folder is None:
            folder = self.folder / f"{make_slug(varied or overrides, telling)}-{digits}"
        return SweepCell(overrides, varied, config, folder, hydra, changed=tuple(changed)), None


def _list_changed_since(folder: Path, contents: Mapping[str, str]) -> list[str]:
    """List what has other contents now than a run has learned from; none if it has not begun."""
    if not contents:
        return []
    run = RunFolder(folder)
    try:
        before = run.metadata().get("contents", {})
    except ConfigError:  # it is told where the folder is read as a run
        return []
    changed = list_changed(before, contents)
    # a run that broke off before its first checkpoint begins anew in its folder
    if changed and not run.last.exists() and run.status().get("status") not in DONE:
        return []
    return changed


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(), YamlLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _name_data(config: Any) -> str:
    """Name what is learned from, with its file where it has one; empty where unknown."""
    if not isinstance(config, Mapping) or not isinstance(config.get("data"), Mapping):
        return ""
    # of a cell that is yet to be checked
    choices, source = config.get("choices"), config["data"].get("source")
    name = choices.get("data") or "" if isinstance(choices, Mapping) else ""
    path = source.get("path") if isinstance(source, Mapping) else None
    return f"{name} {path}" if path else str(name)


def unique_cells(cells: Sequence[SweepCell]) -> list[SweepCell]:
    """Keep one cell of each folder."""
    return list({cell.folder: cell for cell in cells}.values())


def validate_cells(cells: Sequence[SweepCell]) -> Iterator[SweepCell]:
    """Check cells before any of them starts: against signatures, and combinations ruled out.

    Of cells that differ in nothing but their seeds, one is looked at.

    Args:
        cells: composed cells.

    Yields:
        Each cell, with its ``problem`` where it cannot work.
    """
    problems: dict[str, str] = {}
    for cell in cells:
        if not cell.problem:
            # a check costs as much as composing; most cells of a study differ in their seeds
            recipe = _serialize_without_seeds(cell.config)
            if recipe not in problems:
                problems[recipe] = _find_problem(cell)
            cell = replace(cell, problem=problems[recipe])
        yield cell


def _serialize_without_seeds(config: Mapping[str, Any]) -> str:
    """Write a configuration as text, without the seeds that are valid."""
    seeds = dict(config["seed"])
    for name, seed in seeds.items():
        if type(seed) is int and seed >= 0:  # not isinstance: True is no seed
            seeds[name] = None
    return json.dumps({**config, "seed": seeds}, sort_keys=True, default=str)


def _find_problem(cell: SweepCell) -> str:
    from truerisk.combinations import check_combinations
    from truerisk.config.check import check_config

    try:
        check_config(cell.config)
        check_combinations(cell.config)
    except UserError as error:
        return str(error)
    return ""


def describe_changes(cells: Sequence[SweepCell]) -> Iterator[str]:
    """Describe, in a line each, what has been edited since runs of a study were trained on it.

    Args:
        cells: those that are not done.
    """
    counts = Counter(name for cell in cells for name in cell.changed)
    for name, count in counts.items():
        those = "a cell of this study ran: it is trained anew, in a folder of its own"
        if count > 1:
            those = (
                f"{count} cells of this study ran: they are trained anew, in folders of their own"
            )
        yield f"{name} has changed since {those}, and reports keep both apart"


def place_cell(config: Mapping[str, Any], folder: Path, overrides: Sequence[str]) -> Path:
    """Find a job's folder: the cell's own, also where the sweeper of others has numbered it.

    Args:
        config: the job's plain, resolved configuration.
        folder: that Hydra has made for the job.
        overrides: of the job.
    """
    digits = hash_config(config)
    if folder.name.endswith(f"-{digits}"):
        return folder
    contents = hash_contents(config)
    others = hash_config(config, contents)
    if folder.name.endswith(f"-{others}"):
        return folder
    with contextlib.suppress(OSError):  # it is not empty, or gone
        folder.rmdir()
    place = folder.with_name(f"{make_slug(overrides)}-{digits}")
    if _list_changed_since(find_begun([place])[place], contents):
        return folder.with_name(f"{make_slug(overrides)}-{others}")
    return place


def name_study(shared: DictConfig, axes: Sequence[Override], fixed: Sequence[Override] = ()) -> str:
    """Name a study: as ``study=`` says, or so that the same cells have the same name again.

    That is the experiment's name, where one is chosen, else the swept keys; then what all cells
    share. ``-m seed=1,2 optimizer=sgd,adam data=wine`` goes to
    ``outputs/optimizer+seed,data=wine``, in whichever order it is written.

    Args:
        shared: what the cells share, Hydra's node included.
        axes: the overrides that are swept.
        fixed: those that all cells have.

    Raises:
        ConfigError: it is no name for a folder.
    """
    if shared.get("study") is not None:
        return check_study_name(str(shared.study))
    counted = [o for o in fixed if o.key_or_group.partition(".")[0] not in {*IGNORED, "experiment"}]
    given = {o.get_key_element(): str(o.get_value_element_as_str()) for o in counted}
    head = "+".join(name_by_axes(shared, sorted(axes, key=lambda axis: axis.key_or_group)))
    common = [f"{key}={given[key]}" for key in sorted(given)]
    if not axes:  # single cells that are added one by one
        common = []
    name, text = head, ",".join([head, *common])
    if common:
        name += f",{make_slug(common)}"
    if len(name) > LONGEST_STUDY or len(text) > LONGEST_SLUG:
        # cut, so that what follows the cut must tell it from others
        name = f"{name[:LONGEST_STUDY]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return name


def name_by_axes(shared: DictConfig, axes: Sequence[Override]) -> list[str]:
    """Return the words of which earlier versions made a study's name, in the order of its axes."""
    experiment = shared.hydra.runtime.choices.get("experiment")
    keys = [axis.key_or_group for axis in axes]
    keys = ["seed" if key == "seed.base" else key for key in keys]
    # swept experiments have no one name
    if experiment not in (None, "default", "[]") and "experiment" not in keys:
        return [make_slug([str(experiment)])]
    return [make_slug([key]) for key in dict.fromkeys(keys)] or ["study"]


def check_study_name(name: str) -> str:
    """Return the name, if it can be a folder's.

    >>> check_study_name("a/b")
    Traceback (most recent call last):
    truerisk.core.errors.ConfigError: study=a/b is no name: use letters, digits and . _ + - = ,
    """
    if not STUDY_NAME.fullmatch(name):
        raise ConfigError(f"study={name} is no name: use letters, digits and . _ + - = ,")
    return name
