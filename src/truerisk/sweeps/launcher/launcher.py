"""What every launcher stands on: the work of a cell, claims, signals, and who tells of what."""

from __future__ import annotations

import math
import pickle
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict, read_write

from truerisk.config.compose import quote_override
from truerisk.core.errors import Interrupted, describe_error
from truerisk.engine.signals import SIGNALS, on_stop
from truerisk.outcome import INTERRUPTED, Outcome
from truerisk.sweeps.locks import find_begun, lock_cells
from truerisk.sweeps.run_cell import ELSEWHERE, REFUSALS, tell_outcome
from truerisk.sweeps.sweep_cell import DONE, SweepCell, read_outcome


@dataclass(frozen=True)
class HydraJobs:
    """What the jobs of a sweep share.

    Attributes:
        context: Hydra's loader and callbacks.
        task: what a job calls with its configuration.
        shared: the sweep's configuration, ``hydra.launcher`` in it.
    """

    context: HydraContext
    task: TaskFunction
    shared: DictConfig


@dataclass(frozen=True)
class CellWork:
    """All that is to be done for one cell: ``work()`` does it, in whichever process calls it.

    It claims the cell, goes on with a run that was cut off, tells the outcome in one line and
    returns it. It can be pickled: Hydra's global state travels with it into a fresh process.

    Attributes:
        cell: the cell.
        number: its place among the cells that were launched together.
        jobs: what it shares with them.
    """

    cell: SweepCell
    number: int
    jobs: HydraJobs

    def __call__(self) -> Outcome:
        """Run the cell here, as a job of Hydra's: with its callbacks, environment and logging."""
        cfg = self.cell.make_cfg()
        # OmegaConf's own copies take ten times as long
        config = build_job_config(pickle.loads(pickle.dumps(cfg)), self.cell, self.number)
        if not _asks_more(config.hydra):
            with enter_job(config, self.cell.folder):
                outcome: Any = self.jobs.task(cfg)
            return outcome
        job = run_job(
            task_function=self.jobs.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.jobs.context,
        )
        return read_job_outcome(job)

    def __getstate__(self) -> dict[str, Any]:
        # Hydra keeps its configuration, plugins and version in singletons, which a process that
        # was not forked has not; OmegaConf's resolvers, in the same state, are no business of
        # pickle's: the cell's configuration is resolved, and Hydra registers its own anew
        return {**self.__dict__, "singletons": Singleton.get_state()["instances"]}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        fields = dict(state)
        Singleton.set_state({**Singleton.get_state(), "instances": fields.pop("singletons")})
        setup_globals()
        self.__dict__.update(fields)


class Launcher:
    """Runs the cells of a sweep: the base of every option of ``hydra/launcher``.

    A launcher of your own says how and where cells run, by one method; the rest is done here, the
    same for all: which cells are left, who works on them, what a signal does, in which order
    outcomes are counted. Its constructor's arguments are the keys of its YAML.

    | override            | called                | to                                            |
    |---------------------|-----------------------|-----------------------------------------------|
    | `run_cells(works)`  | once for each batch   | call ``work()`` for each, in whichever        |
    | (must be)           | of the sweeper        | process, and yield ``work.cell, outcome``     |
    |                     |                       | as they end, in any order                     |
    | `stop_cells(name)`  | at the first SIGINT   | pass the signal on to processes that it does  |
    | (may be)            | or SIGTERM, where     | not reach by itself; each saves its cell.     |
    |                     | ``passes_signals``    | ``self.stopped`` then is the signal's name,   |
    |                     | is True               | and `run_cells` begins no other cell          |
    | `group_cells(cells)`| by ``truerisk plan``  | say which cells are trained together          |
    | (may be)            |                       | (each by itself, unless overridden)           |

    A work tells its own outcome; for one whose worker was lost, `tell_lost` does, and gives what
    the folder says. `claim_cells` is for a launcher that trains several cells as one, and so does
    not call their works.
    """

    passes_signals = False
    stopped = ""
    """The signal that was passed on; empty where none was."""

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run cells, and yield each with its outcome, in any order.

        Args:
            works: one for each cell; ``work()`` returns the outcome.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides run_cells")

    def stop_cells(self, name: str) -> None:
        """Ask the cells that are running to save themselves and end.

        Args:
            name: of the signal, ``SIGINT`` or ``SIGTERM``.
        """

    def group_cells(self, cells: Sequence[SweepCell]) -> list[list[SweepCell]]:
        """Say which cells are trained together; a cell that runs by itself is a list of one."""
        return [[cell] for cell in cells]

    def share_works(self, works: Sequence[CellWork]) -> list[list[CellWork]]:
        """Split works as `group_cells` says: into those that one worker does."""
        work_of = {work.cell.folder: work for work in works}
        groups = self.group_cells([work.cell for work in works])
        return [[work_of[cell.folder] for cell in group] for group in groups]

    def launch(self, cells: Sequence[SweepCell], jobs: HydraJobs) -> list[Outcome]:
        """Run cells.

        Args:
            cells: those that are not done yet and can work.
            jobs: what they share.

        Returns:
            How they ended, in their order.

        Raises:
            SystemExit: a signal asked for an end; the code is that of a process it has killed.
        """
        try:
            return self.run_works([CellWork(cell, i, jobs) for i, cell in enumerate(cells)])
        finally:
            REFUSALS.tell()

    def run_works(self, works: Sequence[CellWork]) -> list[Outcome]:
        """Run works, as `launch` does: for launchers that leave some of their cells to another."""
        # cells in this process catch signals by themselves, and a second one is to end it at once
        with on_stop(self._pass_signal) if self.passes_signals else nullcontext():
            try:
                outcomes = {}
                for cell, outcome in self.run_cells(works):
                    outcomes[cell.folder] = outcome
                    if outcome.status == "refused":  # not noted yet where it was a worker's
                        tell_outcome(outcome, outcome.folder or cell.folder)
                    else:  # neighbours are often refused alike, and one line tells of them
                        REFUSALS.tell(ended=False)
            except Interrupted as stop:
                raise SystemExit(INTERRUPTED.get(str(stop), 130)) from None
        if self.stopped:
            raise SystemExit(INTERRUPTED[self.stopped])
        cells = [work.cell for work in works]
        for cell in cells:
            if cell.folder not in outcomes:
                outcomes[cell.folder] = tell_lost(cell, "it gave no outcome")
        return [outcomes[cell.folder] for cell in cells]

    def _pass_signal(self, name: str) -> None:
        self.stopped = name
        self.stop_cells(name)


class SerialLauncher(Launcher):
    """One cell after another, in this process: ``hydra/launcher=basic``."""

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run the cells in turn."""
        for work in works:
            yield work.cell, work()


_stopped: list[str] = []
"""In a worker: the signal that it was sent, after which it begins no other cell."""


@dataclass(frozen=True)
class WorkShare:
    """What one worker of joblib's, submitit's or Ray's does.

    Attributes:
        works: of its cells.
        launcher: runs them there.
    """

    works: Sequence[CellWork]
    launcher: Launcher

    def __call__(self) -> list[Outcome]:
        """Train the cells, in the worker's own process."""
        return self.launcher.run_works(self.works)

    def run_until_stopped(self) -> list[Outcome]:
        """Train the cells, unless a signal has come; ones that it stops save themselves."""
        try:
            if not _stopped:
                return self()
        except SystemExit as end:
            _stopped.append(next(name for name, code in INTERRUPTED.items() if code == end.code))
        return [Outcome(math.nan, "interrupted", _stopped[0]) for _ in self.works]


@contextmanager
def claim_cells(
    cells: Sequence[SweepCell],
) -> Iterator[tuple[list[SweepCell], dict[Path, Outcome]]]:
    """Claim cells that are trained as one, for the length of the block.

    Args:
        cells: those that would be trained.

    Yields:
        The cells that are left to train here, each where it has been begun, and by folder the
        outcomes of the others: of those that are done by now, and of those that another process
        is at.
    """
    with lock_cells([cell.folder for cell in cells]) as folders:
        begun = find_begun([cell.folder for cell in cells])
        for folder in folders:
            begun[folder].mkdir(exist_ok=True)  # for others to see whose it is
        # read under the locks: another process may have finished some since the sweep looked
        ended = {cell.folder: read_outcome(begun[cell.folder]) for cell in cells}
        outcomes = {k: replace(end, folder=begun[k]) for k, end in ended.items()}
        outcomes |= {cell.folder: ELSEWHERE for cell in cells if cell.folder not in folders}
        decided = {k: v for k, v in outcomes.items() if v.status in (*DONE, ELSEWHERE.status)}
        waiting = [cell for cell in cells if cell.folder not in decided]
        yield [replace(cell, folder=begun[cell.folder]) for cell in waiting], decided


def note_signals() -> None:
    """Have this worker begin no other cell after a signal; one at work has handlers of its own."""
    for number in SIGNALS:
        signal.signal(number, lambda n, _: _stopped.append(signal.Signals(n).name))


def lost_outcome(cell: SweepCell, error: BaseException | str) -> Outcome:
    """Read how a cell ended whose worker gave no outcome.

    Args:
        cell: the cell.
        error: what is known of the loss; the first line counts.

    Returns:
        The outcome in its folder; failed, for this reason, where that says nothing.
    """
    outcome = cell.read_outcome()
    # "running" is what a killed process leaves behind
    if outcome.status not in ("missing", "running"):
        return replace(outcome, new=True)
    return Outcome(math.nan, "failed", describe_error(error), lost=True)


def tell_lost(cell: SweepCell, error: BaseException | str) -> Outcome:
    """Print and return how a cell ended whose worker gave no outcome.

    Args:
        cell: the cell.
        error: what is known of the loss; the first line counts.
    """
    outcome = lost_outcome(cell, error)
    tell_outcome(outcome, cell.folder)
    return outcome


def tell_far(
    ended: Iterable[tuple[SweepCell, Outcome]],
) -> Iterator[tuple[SweepCell, Outcome]]:
    """Tell how cells ended whose workers print into files, errors included; yields them again.

    Args:
        ended: cells and their outcomes, each told as it comes.
    """
    for cell, outcome in ended:
        if outcome.fault:
            print(outcome.fault, file=sys.stderr)
        tell_outcome(outcome, outcome.folder or cell.folder)
        yield cell, outcome


def tell_reasons(reasons: Mapping[str, str], one: str, several: str) -> None:
    """Print a line for each reason, to stderr, however many cells have it.

    Args:
        reasons: why, by the label of the cell.
        one: the line where one cell has the reason: ``{cell}`` is its label, ``{why}`` the reason.
        several: where more have it: ``{more}`` is how many, beside the first.
    """
    for why in dict.fromkeys(reasons.values()):
        first, *others = (label for label, reason in reasons.items() if reason == why)
        line = one
        if others:
            line = several
        print(line.format(cell=first, more=len(others), why=why), file=sys.stderr)


def read_job_outcome(job: JobReturn) -> Outcome:
    """Take the outcome out of what Hydra returns for a job; an error in the job is raised here."""
    value: Any = job._return_value  # its property tells of an error before it is told by us
    if isinstance(value, BaseException):
        raise value
    if isinstance(value, Outcome):
        return value
    return Outcome(math.nan, "failed", "no outcome")


def _asks_more(hydra: DictConfig) -> bool:
    """Tell whether a job asks Hydra for more than its configuration, a folder and logging."""
    job = hydra.job
    return any((job.chdir, job.env_set, job.env_copy, hydra.output_subdir, hydra.callbacks))


@contextmanager
def enter_job(config: DictConfig, folder: Path) -> Iterator[None]:
    """Let Hydra's state be that of a job: `run_job` copies the configuration five times for it.

    Args:
        config: the job's, Hydra's own node included.
        folder: of its run, which is made.
    """
    with read_write(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    state: Any = HydraConfig.instance()
    held = state.cfg
    state.cfg = config
    folder.mkdir(parents=True, exist_ok=True)
    configure_log(config.hydra.job_logging, config.hydra.verbose)
    try:
        yield
    finally:
        state.cfg = held


def build_job_config(cfg: DictConfig, cell: SweepCell, number: int) -> DictConfig:
    """Build the configuration of a job as Hydra would compose it, its own node included.

    Args:
        cfg: the cell's, which joins it.
        cell: the cell.
        number: the job's number in the sweep.
    """
    own = pickle.loads(cell.hydra)
    with open_dict(cfg), flag_override(cfg, "no_deepcopy_set_nodes", True):
        cfg.hydra = own.hydra
        cfg.hydra.overrides.task = list(cell.overrides)
        cfg.hydra.job.num = number
        cfg.hydra.job.id = str(number)
        cfg.hydra.sweep.subdir = cell.folder.name
        # Hydra 1.3 reads them in a copy that lacks what they refer to
        OmegaConf.resolve(cfg.hydra.job.env_set)
    return cfg


# those of others, that know nothing of ours
class HydraPlugin(Launcher):
    """Hands Hydra's launcher the overrides of each cell, its folder among them."""

    def run_cells(self, works: Sequence[CellWork]) -> Iterator[tuple[SweepCell, Outcome]]:
        """Run the cells wherever the plugin runs them."""
        jobs, cells = works[0].jobs, [work.cell for work in works]
        plugin = Plugins.instance().instantiate_launcher(
            hydra_context=jobs.context,
            task_function=jobs.task,
            config=jobs.shared,
        )
        overrides = [
            [*cell.overrides, f"hydra.sweep.subdir={quote_override(cell.folder.name)}"]
            for cell in cells
        ]
        try:
            ended = plugin.launch(overrides, initial_job_idx=0)
            outcomes = [read_job_outcome(job) for job in ended]
        except Exception as error:
            # a plugin that loses one job (a worker that crashed, a job that was cancelled) gives
            # no outcome for any of them
            print(f"error: {describe_error(error)}", file=sys.stderr)
            outcomes = [lost_outcome(cell, error) for cell in cells]
        yield from zip(cells, outcomes, strict=True)
