"""Training a group of cells together, a block of them at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from omegaconf import DictConfig

from truerisk.assemble import LoadedData, assemble, build_loggers
from truerisk.config.compose import resolve_config
from truerisk.config.contents import Known, hash_contents
from truerisk.core import threads
from truerisk.core.atomic_files import describe_file_error
from truerisk.core.errors import Interrupted, UserError
from truerisk.core.stop import Stop
from truerisk.core.yaml_files import format_yaml
from truerisk.data import LoaderSplit
from truerisk.engine.host import Host
from truerisk.engine.loop import Observer, TrainingLoop
from truerisk.engine.precision import choose_device
from truerisk.engine.recorder import Recorder, outcome_of
from truerisk.engine.signals import on_stop
from truerisk.engine.stacked.backend import StackedBackend
from truerisk.engine.stacked.block_size import (
    KEPT,
    LARGEST,
    SMALL,
    choose_block_size,
    even_block_size,
    give_freed_memory_back,
    is_out_of_memory,
    keep_freed_memory,
)
from truerisk.engine.stacked.grouping import Unstackable
from truerisk.engine.stacked.stacked_run import StackedRun, make_stacked_run
from truerisk.engine.state import TrainingRun
from truerisk.engine.stopping import make_stop_rules
from truerisk.fit import quiet
from truerisk.logger import TidyCSV
from truerisk.logger.history import read_history, read_metric_rows
from truerisk.logger.label import recipe_name
from truerisk.recipe import Recipe
from truerisk.result import RunResult, load_checkpoint
from truerisk.risk.measured import Measured
from truerisk.run import RunFolder
from truerisk.show.console import print_notes
from truerisk.show.figure import risk_figure

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class GroupJob(NamedTuple):
    """A cell to train: its configuration, its folder, and what joins its metadata."""

    cfg: DictConfig
    folder: Path
    facts: Mapping[str, Any]


class StackedGroup:
    """Cells that stack, trained block by block.

    Each leaves the files of an ordinary run in its folder, checkpoints among them, from which this
    or ``truerisk train resume=`` goes on with it.

    Args:
        jobs: the cells.
        size: members in a block at most; None for what suits the model.
        tell: called with the number of steps that were taken, and by how many whole runs that,
            and what need not be run, brings the cells on.
        processes: how many share the machine's memory.
    """

    def __init__(
        self,
        jobs: Sequence[GroupJob],
        size: int | None = None,
        tell: Callable[[int, float], None] = lambda taken, done: None,
        processes: int = 1,
    ) -> None:
        self.jobs, self.size, self.tell, self.processes = list(jobs), size, tell, processes
        self.refused: dict[Path, str] = {}
        self.loaded: LoadedData = {}
        self.known: Known = {}
        self.stop = ""
        self.loop: TrainingLoop | None = None

    def train(self) -> None:
        """Train what has not ended yet; cells that cannot begin are left in ``refused``.

        Raises:
            Interrupted: the process was asked to stop; every cell in progress has been saved.
        """
        keep_freed_memory()
        with quiet(), threads.limit_threads(_threads(self.jobs[0].cfg)), on_stop(self.request_stop):
            waiting = self.jobs
            self.size = even_block_size(len(self.jobs), self.size or self.choose_size())
            while waiting:
                now, waiting = waiting[: self.size], waiting[self.size :]
                try:
                    self._together(now)
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if len(now) == 1 or not is_out_of_memory(error):
                        raise
                    self.size = -(-len(now) // 2)
                    waiting = [*now, *waiting]

    def choose_size(self) -> int:
        """Choose how many members to train at once, from the first of them."""
        cfg = self.jobs[0].cfg
        try:
            recipe = assemble(cfg, loaded=self.loaded)
        except UserError:  # told of each cell as it is opened
            return LARGEST
        return choose_block_size(recipe, choose_device(cfg.trainer), self.processes)

    def request_stop(self, why: str) -> None:
        """Save all cells after the step at hand and end, as the signal of that name asks."""
        self.stop = why
        if self.loop is not None:
            self.loop.request_stop(why)

    def _together(self, jobs: Sequence[GroupJob]) -> None:
        """Train some cells; those of another shape or at another step, one after another."""
        blocks: dict[Any, list[StackedRun]] = {}
        if len(self.loaded) > 1:
            self.loaded.clear()  # of the block before, whose seeds had data of their own
        for job in jobs:
            try:
                run = open_run(job, self.loaded, self.known)
            except UserError as error:
                self.refused[job.folder] = str(error)
            else:
                self.tell(0, run.state.step / max(1, run.horizon))
                blocks.setdefault(run.shape, []).append(run)
        for runs in blocks.values():
            for run in runs:
                run.recorder.run.together = len(runs)
            self._train_block(runs, jobs[0].cfg.checkpoint_seconds)

    def _train_block(self, runs: Sequence[StackedRun], checkpoint_seconds: float) -> None:
        give_freed_memory_back()  # what reading the data took, and the block before
        host = Host(choose_device(self.jobs[0].cfg.trainer))
        with host.place.default_dtype():
            backend = StackedBackend(runs, host)
            # Of memory that is kept, holes add up: few have room for another tensor of their size.
            keep_freed_memory(SMALL if backend.spares_memory else KEPT)
            observers = [_Teller(self.tell)]
            self.loop = TrainingLoop(backend, observers, checkpoint_seconds, finish_run)
            self.loop.request_stop(self.stop)
            try:
                self.loop.train()
            except Interrupted:
                for run in backend.runs:
                    stop = Stop("signal", run.state.step, {"name": self.stop})
                    run.recorder.run.set_status("interrupted", stop=stop)
                raise
            self.loop = None


class _Teller(Observer):
    """Tell how many steps were taken, and by how many whole runs that brings the cells on."""

    def __init__(self, tell: Callable[[int, float], None]) -> None:
        self.tell, self.members, self.step = tell, 0, 0

    def on_start(self, loop: TrainingLoop) -> None:
        """Count the runs."""
        self.members, self.step = len(loop.backend.runs), loop.first.state.step

    def on_step(self, loop: TrainingLoop) -> None:
        """Count the steps of each, and what is spared of those that have ended since."""
        run = loop.first
        taken = self.members * (run.state.step - self.step)
        spared = (self.members - len(loop.backend.runs)) * (run.horizon - run.state.step)
        self.tell(taken, (taken + spared) / run.horizon)
        self.members, self.step = len(loop.backend.runs), run.state.step


def finish_run(run: TrainingRun, status: str) -> None:
    """Draw the figure of a run that has ended, and say how it ended."""
    folder = run.recorder.run
    try:
        draw_risks(folder, run.recorder.config, seen=False)
    except OSError as error:  # all is measured, and truerisk draw makes it later
        print(f"no figures: {describe_file_error(error, folder.path)}", file=sys.stderr)
    run.recorder.run.set_status(status, stop=run.state.stop)


def draw_risks(folder: RunFolder, config: Mapping[str, Any], seen: bool = True) -> None:
    """Draw the figure of a run, where it is to have one (`RunFolder.wants_figures`).

    Args:
        folder: of the run.
        config: its plain configuration.
        seen: whether somebody looks.
    """
    if folder.wants_figures(config.get("figures"), seen):
        path = RunResult(folder.path).figure_file
        history = read_metric_rows(folder.path)
        if len(history):
            risk_figure(history, path, recipe_name(config), folder.summary())


class LateLoggers:
    """The chosen loggers, told all that a run has recorded once it has ended.

    Of hundreds of runs at once not every one could be open.

    Args:
        folder: of the run.
        cfg: its configuration.
    """

    def __init__(self, folder: RunFolder, cfg: DictConfig) -> None:
        self.folder, self.cfg = folder, cfg

    @cached_property
    def loggers(self) -> list[Logger]:
        """The loggers beside the table of numbers, which is kept all along."""
        if not self.cfg.logger:
            return []
        where = {"folder": self.folder.path, "run_id": self.folder.id, "resume_step": None}
        loggers = build_loggers(self.cfg, **where)
        return [logger for logger in loggers if not isinstance(logger, TidyCSV)]

    @property
    def shows_figures(self) -> bool:
        """Whether one of them shows the run's figures."""
        return any(getattr(logger, "shows_figures", False) for logger in self.loggers)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Leave them to the table."""

    def log_summary(self, summary: Mapping[str, Measured], status: str) -> None:
        """Tell each logger the table and the summary, and close it."""
        for logger in self.loggers:
            history = read_history(self.folder.path)
            for (at, epoch), rows in history.groupby(["step", "epoch"], sort=False, dropna=False):
                values: dict[str, Any] = dict(zip(rows.name, rows.value, strict=True))
                logger.log_metrics({**values, "epoch": epoch}, step=int(at))
            if hasattr(logger, "log_summary"):
                logger.log_summary(summary, status)
            logger.finalize(outcome_of(status))

    def finalize(self, status: str) -> None:
        """Open none for a run that is to go on."""


def open_run(job: GroupJob, loaded: LoadedData, known: Known) -> StackedRun:
    """Make a run at its start, or where its checkpoint left it.

    Args:
        job: the cell.
        loaded: data of the runs before, which are shared by those on the same.
        known: hashes of the files and modules that they name.

    Raises:
        UserError: it cannot begin, or go on.
        Unstackable: its samples are not held in memory, as ``in_memory: auto`` has found.
    """
    folder, cfg = RunFolder(job.folder), job.cfg
    resumed, config = folder.begun, format_yaml(cfg)
    if resumed:
        folder.repair(config)
        folder.reopen()
    checkpoint = load_checkpoint(folder.last) if resumed and folder.last.exists() else None
    step = None
    if resumed:
        step = 0 if checkpoint is None else checkpoint["truerisk"]["step"]["count"]
    plain, host = resolve_config(cfg), Host(choose_device(cfg.trainer))
    contents = hash_contents(plain, known)

    loggers = [TidyCSV(folder.path, step or None), LateLoggers(folder, cfg)]
    recorder = Recorder(folder, plain, loggers, draw=partial(draw_risks, folder, plain))
    recipe, limits = assemble(cfg, loaded=loaded), (cfg.trainer.max_epochs, cfg.trainer.max_steps)
    if isinstance(recipe.data.train, LoaderSplit):
        raise Unstackable(
            "its samples are more than 2 GiB, and read one batch at a time (data.in_memory=true "
            "would hold them)"
        )
    print_notes(recipe.data.notes, once=True)
    run = make_stacked_run(recipe, host, limits, recorder, keys_of(plain, recipe))
    print_notes(run.schedule.notices, once=True, warn=True)
    run.rules = make_stop_rules(recipe, plain, folder.path, host)
    if checkpoint is not None:
        run.restore(checkpoint)
    facts = {"threads": torch.get_num_threads(), **recipe.facts(), "contents": contents}
    facts |= {**job.facts, "stacked": True}
    if resumed:
        folder.set_status("running", "resumed")
        folder.write_facts(facts)
        folder.note_contents(contents)
    else:
        folder.create(config, facts)
    return run


def keys_of(config: Mapping[str, Any], recipe: Recipe) -> tuple[str, str, str]:
    """Return what tells which runs share an update rule, their data, and a schedule."""
    data = [config["data"], recipe.streams.data, recipe.risk.train_samples]
    moving = [config["scheduler"], config["optimizer"], config["param_groups"]]
    return (
        config["optimizer"]["_target_"],
        json.dumps(data, default=str),
        json.dumps(moving, sort_keys=True),
    )


def _threads(cfg: DictConfig) -> int:
    return 1 if cfg.threads == "auto" else int(cfg.threads)
