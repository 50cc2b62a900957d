"""A sweep from its command line to its outcomes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from truerisk.config.compose import ConfigLoader, expand_short_forms, quote_override
from truerisk.core.errors import ConfigError
from truerisk.outcome import Outcome
from truerisk.sweeps.cell_composer import CellComposer
from truerisk.sweeps.launcher import HydraJobs, Launcher
from truerisk.sweeps.launcher.launcher import SerialLauncher
from truerisk.sweeps.launcher.plugin import HydraPlugin
from truerisk.sweeps.study_folder import StudyFolder, study_name, unique_cells, validate_cells
from truerisk.sweeps.sweep_cell import DONE, SweepCell
from truerisk.sweeps.sweeper import Sweeper
from truerisk.sweeps.sweeper.axis import quote_distributions
from truerisk.sweeps.sweeper.grids import GridSweeper

OWN_PREFIX = "truerisk."
OF_A_SWEEP = ("study", "report")
"""Keys that say something of the sweep, and nothing of its cells."""
BASIC = "hydra._internal.core_plugins.basic_"


class Sweep:
    """The sweep that overrides of ``truerisk train --multirun`` ask for.

    Raises:
        ConfigError: they cannot be composed, or name no folder.
    """

    def __init__(
        self, loader: ConfigLoader, name: str, overrides: Sequence[str], shared: DictConfig
    ) -> None:
        self.loader, self.name, self.shared = loader, name, shared
        self.sweeper = _sweeper(self.shared.hydra.sweeper)
        self.axes = self._axes(overrides)
        swept = [o for o in self.axes if o.is_sweep_override()]
        self.shared.study = study_name(self.shared, swept)
        folder = Path(str(self.shared.hydra.sweep.dir)).absolute()
        self.hydra = [
            *(str(o) for o in self.shared.hydra.overrides.hydra if not _placed(str(o))),
            f"study={quote_override(self.shared.study)}",
            "hydra.mode=MULTIRUN",
            f"hydra.sweep.dir={quote_override(str(folder))}",
        ]
        self.shared.hydra.overrides.hydra = self.hydra
        self.shared.hydra.sweep.dir = str(folder)
        fixed = [o for o in self.axes if not o.is_sweep_override()]
        texts = {f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in fixed}
        self.study = StudyFolder(folder, CellComposer(loader, name, self.hydra), texts)

    def _axes(self, overrides: Sequence[str]) -> list[Override]:
        """The sweeper's own axes, then those of the command line."""
        params = [f"{key}={value}" for key, value in self.sweeper.params.items()]
        parsed = self.loader.parsed([*quote_distributions(expand_short_forms(params)), *overrides])
        for o in parsed:
            if o.key_or_group in OF_A_SWEEP and o.is_sweep_override():
                raise ConfigError(f"{o.input_line}: a sweep has one; a text with commas is quoted")
        return [o for o in parsed if not (o.is_hydra_override() or o.key_or_group in OF_A_SWEEP)]

    def batches(self) -> Any:
        """The sweeper's points, batch after batch."""
        return self.sweeper.batches(self.axes, self.study)

    def launcher(self) -> Launcher:
        """The chosen option of ``hydra/launcher``."""
        node = self.shared.hydra.launcher
        if str(node._target_).startswith(BASIC):
            return SerialLauncher()
        return _made(node) if is_own(node) else HydraPlugin()

    def run(self, task: TaskFunction) -> list[Outcome]:
        """Do what is missing of the sweep; how every cell of it ended."""
        callbacks = Callbacks(self.shared)
        callbacks.on_multirun_start(config=self.shared, config_name=self.name)
        jobs = HydraJobs(HydraContext(self.loader, callbacks), task, self.shared)
        outcomes = list(self._outcomes(jobs))
        callbacks.on_multirun_end(config=self.shared, config_name=self.name)
        return outcomes

    def _outcomes(self, jobs: HydraJobs) -> Iterator[Outcome]:
        launcher, batches = self.launcher(), self.batches()
        points = next(batches, None)
        while points is not None:
            cells = self.study.cells(points)
            found = self._launched(unique_cells(cells), launcher, jobs)
            yield from found.values()
            try:
                points = batches.send([found[cell.folder] for cell in cells])
            except StopIteration:
                points = None

    def _launched(
        self, cells: Sequence[SweepCell], launcher: Launcher, jobs: HydraJobs
    ) -> dict[Path, Outcome]:
        found = {cell.folder: cell.outcome() for cell in cells}
        waiting = [cell for cell in cells if found[cell.folder].status not in DONE]
        ready = []
        for cell in validate_cells(waiting):
            if cell.problem:
                print(f"error: {cell.label}: {cell.problem}", file=sys.stderr)
                found[cell.folder] = Outcome(float("nan"), "refused", cell.problem)
            else:
                ready.append(cell)
        if ready:
            self.study.folder.mkdir(parents=True, exist_ok=True)
            ended = launcher.launch(ready, jobs)
            found |= {cell.folder: end for cell, end in zip(ready, ended, strict=True)}
        return found


def _placed(override: str) -> bool:
    """Whether a Hydra override is one that a sweep sets itself."""
    return override.lstrip("+").startswith(("hydra.mode=", "hydra.sweep.dir="))


def is_own(node: DictConfig) -> bool:
    """Whether a sweeper or launcher is one of ours, or Hydra's basic one, which ours replace."""
    return str(node._target_).startswith((OWN_PREFIX, BASIC))


def _sweeper(node: DictConfig) -> Sweeper:
    if str(node._target_).startswith(BASIC):
        return GridSweeper(node.params, node.max_batch_size)
    return _made(node)


def _made(node: DictConfig) -> Any:
    """What a node stands for; not by Hydra's ``instantiate``, which wraps our errors."""
    options: Any = OmegaConf.to_container(node, resolve=True)
    return get_object(options.pop("_target_"))(**options)
