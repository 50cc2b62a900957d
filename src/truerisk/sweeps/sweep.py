"""A sweep from its command line to its outcomes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from truerisk.config.cell_composer import CellComposer
from truerisk.config.compose import (
    BASIC_PLUGINS,
    ConfigLoader,
    expand_short_forms,
    make_callbacks,
    quote_override,
)
from truerisk.config.targets import locate_target
from truerisk.core.checks import find_empty
from truerisk.core.errors import ConfigError
from truerisk.engine.peers import refuse_sweep
from truerisk.outcome import Outcome
from truerisk.run import RunFolder
from truerisk.sweeps.launcher import HydraJobs, Launcher, SerialLauncher
from truerisk.sweeps.launcher.launcher import HydraPlugin
from truerisk.sweeps.outcome_index import OutcomeIndex
from truerisk.sweeps.run_cell import REFUSALS
from truerisk.sweeps.study_folder import (
    StudyFolder,
    describe_changes,
    name_by_axes,
    name_study,
    unique_cells,
    validate_cells,
)
from truerisk.sweeps.sweep_cell import DONE, SweepCell, record_cell_failure
from truerisk.sweeps.sweeper import Batches, Sweeper
from truerisk.sweeps.sweeper.axis import quote_distributions, write_axes
from truerisk.sweeps.sweeper.grids import GridSweeper
from truerisk.task import config_has_samples

OF_A_SWEEP = ("study", "report")
"""Keys that say something of the sweep, and nothing of its cells."""


class Sweep:
    """The sweep that overrides of ``truerisk train --multirun`` ask for.

    Args:
        loader: reads the options.
        name: of the primary config.
        overrides: of the command line, short forms written out.
        shared: what the cells share, as Hydra composes it for a multirun.

    Attributes:
        has_functions: whether a cell that it has come to is on a test function.

    Raises:
        ConfigError: they cannot be composed, or name no folder.
    """

    def __init__(
        self, loader: ConfigLoader, name: str, overrides: Sequence[str], shared: DictConfig
    ) -> None:
        self.loader, self.name, self.shared = loader, name, shared
        self.sweeper = make_sweeper(self.shared.hydra.sweeper)
        self.axes = self._parse_axes(overrides, self.sweeper.params)
        self.parts = self._split_by_experiment(overrides)
        if len(self.parts) > 1:  # what one experiment sweeps is no axis of all
            self.axes = self._parse_axes(overrides)
        swept = [override for override in self.axes if override.is_sweep_override()]
        self._name_study(swept)
        if not str(self.shared.hydra.sweep.dir).strip():
            raise ConfigError("hydra.sweep.dir is empty: name the sweep's folder, or leave it out")
        folder = Path(str(self.shared.hydra.sweep.dir)).absolute()
        # as they stand: what one refers to (``${…}``) is the cell's own
        hydra: Any = OmegaConf.to_container(self.shared.hydra.overrides.hydra)
        self.hydra = [
            *(override for override in hydra if not _is_set_by_sweep(override)),
            f"study={quote_override(self.shared.study)}",
            "hydra.mode=MULTIRUN",
            f"hydra.sweep.dir={quote_override(str(folder))}",
        ]
        # plugins compose their jobs themselves, from these and the cell's own
        self.shared.hydra.overrides.hydra = self.hydra
        self.shared.hydra.sweep.dir = str(folder)
        fixed = [override for override in self.axes if not override.is_sweep_override()]
        # as sweepers write them in points, so that a cell is not named after what all cells have
        texts = {f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in fixed}
        adaptive = getattr(self.sweeper, "adaptive", False)
        conditional = loader.find_conditional(self.axes) if adaptive else []
        for override in conditional:
            if not loader.fits_some_option(override, self.axes):
                raise ConfigError(
                    f"{override.input_line}: none of the options that are swept has such a key"
                )
        self.has_functions = False
        composer = CellComposer(loader, name, self.hydra)
        self.study = StudyFolder(folder, composer, texts, partial=bool(conditional))

    def _name_study(self, swept: Sequence[Override]) -> None:
        """Set the study's name, of which its folder is made; tell of one under an older name."""
        given = self.shared.get("study")
        fixed = [override for override in self.axes if not override.is_sweep_override()]
        self.shared.study = name = name_study(self.shared, swept, fixed)
        words = name_by_axes(self.shared, swept)
        if given is not None or Path(str(self.shared.hydra.sweep.dir)).is_dir() or len(words) > 5:
            return
        for order in permutations(words):
            self.shared.study = old = "+".join(order)
            folder = Path(str(self.shared.hydra.sweep.dir))
            if old != name and folder.is_dir():
                print(
                    f"{folder} holds a study of these axes, named as earlier versions did: "
                    f"study={old} goes on with it; without, this one goes to {name}",
                    file=sys.stderr,
                )
                break
        self.shared.study = name

    def _split_by_experiment(
        self, overrides: Sequence[str]
    ) -> list[tuple[Sweeper, list[Override]]]:
        """Give each of several experiments the sweeper and the axes of its own YAML.

        Returns:
            Sweepers with the axes that each goes through; one, where all have the same.

        Raises:
            ConfigError: one of several is searched by a tuner, or swept by a plugin.
        """
        whole = [(self.sweeper, self.axes)]
        swept = [o for o in self.axes if o.key_or_group == "experiment"]
        if not swept or not swept[-1].is_discrete_sweep():
            return whole
        experiments = list(swept[-1].sweep_string_iterator())
        lines = {override.input_line for override in swept}
        texts = {
            e: [f"experiment={e}" if text in lines else text for text in overrides]
            for e in experiments
        }
        nodes = {
            e: self.loader.load_configuration(self.name, own, RunMode.MULTIRUN).hydra.sweeper
            for e, own in texts.items()
        }
        first = OmegaConf.to_container(next(iter(nodes.values())))
        if all(OmegaConf.to_container(node) == first for node in nodes.values()):
            return whole
        parts = []
        for experiment, node in nodes.items():
            sweeper = make_sweeper(node) if is_own_sweeper(node) else None
            if sweeper is None or getattr(sweeper, "adaptive", False):
                choice = node._target_.rpartition(".")[2]
                raise ConfigError(
                    f"experiment={experiment} is searched by {choice}, which takes one experiment "
                    f"at a time: give each of {', '.join(experiments)} a command of its own"
                )
            parts.append((sweeper, self._parse_axes(texts[experiment], sweeper.params)))
        return parts

    def _parse_axes(
        self, overrides: Sequence[str], own_axes: Mapping[str, Any] | None = None
    ) -> list[Override]:
        """Parse the sweeper's own axes, then those of the command line."""
        own = quote_distributions(expand_short_forms(write_axes(own_axes or {})))
        axes = []
        for override in self.loader.read_overrides([*own, *overrides]):
            if override.key_or_group in OF_A_SWEEP:
                if override.is_sweep_override():
                    said = "a sweep has one; a text with commas is quoted"
                    raise ConfigError(f"{override.input_line}: {said}")
            elif not override.is_hydra_override():
                axes.append(override)
        return axes

    def propose_batches(self) -> Batches:
        """Ask the sweeper for its points, batch after batch."""
        for sweeper, axes in self.parts:
            yield from sweeper.propose_batches(axes, self.study)

    def make_launcher(self) -> Launcher:
        """Make the chosen option of ``hydra/launcher``: one of ours, a user's, or Hydra's plugin.

        Raises:
            ConfigError: there is no such class.
        """
        node = self.shared.hydra.launcher
        if str(node._target_).startswith(BASIC_PLUGINS):
            return SerialLauncher()
        target = locate_target(str(node._target_), "hydra.launcher._target_")
        if isinstance(target, type) and issubclass(target, Launcher):
            return _call_target(target, node, "hydra.launcher")
        return HydraPlugin()

    def run(self, task: TaskFunction) -> list[Outcome]:
        """Do what is missing of the sweep.

        Args:
            task: what a job calls with its configuration.

        Returns:
            How every cell of it ended.
        """
        REFUSALS.clear()
        callbacks = make_callbacks(self.shared)
        callbacks.on_multirun_start(config=self.shared, config_name=self.name)
        jobs = HydraJobs(HydraContext(self.loader, callbacks), task, self.shared)
        index = OutcomeIndex(self.study.folder)
        try:
            outcomes = list(self._run_batches(jobs, index))
            index.set_time()
            for end in outcomes:
                if end.new and end.folder is not None:
                    index.read_outcome(end.folder)
        finally:
            index.write()
        callbacks.on_multirun_end(config=self.shared, config_name=self.name)
        return outcomes

    def _run_batches(self, jobs: HydraJobs, index: OutcomeIndex) -> Iterator[Outcome]:
        """Run batch after batch; the sweeper is sent how each ended, a cell asked twice twice."""
        launcher, batches = self.make_launcher(), self.propose_batches()
        # not a for loop: it could send nothing back to the sweeper
        points = next(batches, None)
        while points is not None:
            cells = self.study.compose_cells(points)
            self.has_functions |= any(_is_on_function(cell.config) for cell in cells)
            outcomes = self._run_missing(unique_cells(cells), launcher, jobs, index)
            # another command may have begun a cell meanwhile, in a folder that it has named
            outcomes = {k: replace(end, folder=end.folder or k) for k, end in outcomes.items()}
            yield from outcomes.values()
            try:
                points = batches.send([outcomes[cell.folder] for cell in cells])
            except StopIteration:
                points = None

    def _run_missing(
        self,
        cells: Sequence[SweepCell],
        launcher: Launcher,
        jobs: HydraJobs,
        index: OutcomeIndex,
    ) -> dict[Path, Outcome]:
        """Run the cells that are not done and can work; gives the outcomes of all, by folder."""
        outcomes = {cell.folder: index.read_outcome(cell.folder) for cell in cells}
        missing = [cell for cell in cells if outcomes[cell.folder].status not in DONE]
        refuse_sweep(cell.config.get("trainer", {}) for cell in missing)
        for line in (*describe_changes(missing), *self.study.describe_other_data(missing)):
            print(line, file=sys.stderr)
        for cell in cells:
            if outcomes[cell.folder].damaged:
                cell.run.tell_losses()
        ready = []
        for cell in validate_cells(missing):
            if cell.problem:
                REFUSALS.note(cell.label, cell.problem)
                outcomes[cell.folder] = Outcome(float("nan"), "refused", cell.problem)
            else:
                ready.append(cell)
                # left under the bare name when it could not be composed
                trace = RunFolder(cell.folder.with_name(cell.label))
                if trace.read_refusal() is not None:
                    trace.discard()
        REFUSALS.tell()
        if ready:
            self.study.folder.mkdir(parents=True, exist_ok=True)
            ended = launcher.launch(ready, jobs)
            outcomes |= {cell.folder: end for cell, end in zip(ready, ended, strict=True)}
        if self.study.folder.is_dir():  # a command of which not one cell can work leaves nothing
            for cell in missing:
                end = outcomes[cell.folder]
                record_cell_failure(replace(cell, folder=end.folder or cell.folder), end)
        return outcomes


def _is_on_function(config: Mapping[str, Any]) -> bool:
    data = config.get("data")
    return isinstance(data, Mapping) and not config_has_samples(str(data.get("_target_")))


def _is_set_by_sweep(override: str) -> bool:
    return override.lstrip("+").startswith(("hydra.mode=", "hydra.sweep.dir="))


def is_own_sweeper(node: DictConfig) -> bool:
    """Tell a sweeper that proposes batches from a plugin of Hydra's, which runs jobs itself.

    Args:
        node: of ``hydra.sweeper``. Hydra's basic sweeper counts, as ours takes its place.
    """
    path = str(node._target_)
    if path.startswith(BASIC_PLUGINS):
        return True
    return hasattr(locate_target(path, "hydra.sweeper._target_"), "propose_batches")


def make_sweeper(node: DictConfig) -> Sweeper:
    """Make the chosen option of ``hydra/sweeper``."""
    path = str(node._target_)
    if path.startswith(BASIC_PLUGINS):
        # Hydra's own would compose every point anew and know nothing of studies
        return GridSweeper(node.params, node.max_batch_size)
    return _call_target(locate_target(path, "hydra.sweeper._target_"), node, "hydra.sweeper")


def _call_target(target: Any, node: DictConfig, key: str) -> Any:
    # not by Hydra's `instantiate`, which wraps a ConfigError into errors of its own
    options: Any = OmegaConf.to_container(node, resolve=True)
    del options["_target_"]
    for empty in find_empty(options, key):
        raise ConfigError(f"{empty} is empty: give it a value, or leave it out")
    return target(**options)
