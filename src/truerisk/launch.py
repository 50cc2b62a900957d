"""``truerisk train``: Hydra run in this process, with exit codes and messages of our own."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from truerisk.config.compose import (
    ConfigLoader,
    expand_resume,
    expand_short_forms,
    hydra_session,
    make_callbacks,
    make_hydra,
    make_parser,
    quote_override,
    resolve_config,
    unread_help,
)
from truerisk.config.mistakes import explain_unresolved
from truerisk.config.parts import PRIMARY
from truerisk.core.errors import ConfigError, UserError, format_count, join_lines
from truerisk.outcome import EXIT, INTERRUPTED, Outcome
from truerisk.task import config_has_samples

PLAN_HELP = """\
truerisk plan [GROUP=OPTION,OPTION…] [KEY=VALUE,VALUE…]

Shows what truerisk train -m would do with the same arguments: a line for each cell, whether its run
is there already, would run or cannot work, which would be trained together, and how long the rest
is going to take. Nothing is trained or written, and no data read: what only the data or the built
model shows, train may still refuse.

  truerisk plan optimizer=sgd,adam 'seed=range(5)'
  truerisk plan 'seed=range(32)' hydra/launcher=vectorized
  truerisk plan 'seed=range(32)' hydra/launcher=vectorized_slurm --nodes 4

--nodes N tells when the last job ends on N nodes of a cluster, and which size of the groups ends
first, from the runs of the study that are timed.

All options and keys: truerisk train --help
"""
STATUS_WORDS = {"elsewhere": "being trained by another command"}


def launch_training(args: Sequence[str], ended: list[Outcome] | None = None) -> int:
    """Do what the arguments of ``truerisk train`` ask.

    Args:
        args: of the command line.
        ended: takes in how each cell of a sweep ended, and in which folder.

    Returns:
        The exit code.
    """
    parser = make_parser("truerisk train")
    given = parser.parse_intermixed_args(list(args))
    if given.experimental_rerun:
        raise UserError("--experimental-rerun is not supported; use resume=FOLDER")
    overrides = expand_overrides(given.overrides, given.multirun)
    given.overrides = overrides
    name = given.config_name or PRIMARY
    with hydra_session():
        loader = ConfigLoader(given.config_dir, given.config_path)
        if not _asks_for_information(given):
            _tell_overridden(loader, overrides)
        if _asks_for_information(given):
            _show_information(make_hydra(loader), name, parser, given)
            return 0
        # composed once: a single run's configuration tells by itself that it is no sweep. Several
        # values may be swept without -m too, by `hydra.mode` or `study` in the YAML of an option.
        parsed = loader.read_overrides(overrides)
        if not given.multirun and not any(override.is_sweep_override() for override in parsed):
            cfg = loader.load_configuration(name, overrides, RunMode.RUN)
            if cfg.hydra.mode != RunMode.MULTIRUN and cfg.get("study") is None:
                _tell_unused(parsed)
                return _run_once(loader, name, cfg)
        shared = loader.load_configuration(name, overrides, RunMode.MULTIRUN)
        multirun = given.multirun or shared.hydra.mode == RunMode.MULTIRUN
        if multirun or shared.get("study") is not None:
            code, outcomes = _run_sweep(loader, name, overrides, shared)
            if ended is not None:
                ended += outcomes
            return code
        # several values, and nothing that makes a sweep of them: Hydra refuses them
        return _run_once(loader, name, loader.load_configuration(name, overrides, RunMode.RUN))


def launch_plan(args: Sequence[str]) -> int:
    """Show what ``truerisk train --multirun`` would do with the same arguments."""
    parser = make_parser("truerisk plan")
    parser.add_argument("--nodes")
    given = parser.parse_intermixed_args(list(args))
    if given.help:
        print(PLAN_HELP, end="")
        return 0
    nodes = None
    if given.nodes is not None:
        if not re.fullmatch(r"[1-9]\d{0,5}", given.nodes):
            raise ConfigError(f"--nodes {given.nodes}: give a whole number of at least 1")
        nodes = int(given.nodes)
    overrides = expand_overrides(given.overrides, multirun=True)
    name = given.config_name or PRIMARY
    from truerisk.sweeps.sweep import Sweep, is_own_sweeper
    from truerisk.sweeps.sweep_plan import plan_sweep

    with hydra_session():
        loader = ConfigLoader(given.config_dir, given.config_path)
        shared = loader.load_configuration(name, overrides, RunMode.MULTIRUN)
        if not is_own_sweeper(shared.hydra.sweeper):
            raise ConfigError(
                "the points of a sweeper that is a Hydra plugin are not known beforehand"
            )
        plan = plan_sweep(Sweep(loader, name, overrides, shared), nodes)
        print("\n".join(plan.format_lines()))
    return 0


def _tell_overridden(loader: ConfigLoader, overrides: Sequence[str]) -> None:
    """Tell of options that are chosen twice, of which the last one counts."""
    last: dict[str, str] = {}
    for override in loader.read_overrides(overrides):
        key, text = override.key_or_group, str(override.input_line)
        if loader.repository.group_exists(key) and not override.is_delete():
            if last.get(key, text) != text:
                print(f"{last[key]} has no effect: {text} comes after it")
            last[key] = text


def _tell_unused(overrides: Sequence[Override]) -> None:
    """Tell of what only a sweep heeds, for a single run."""
    for override in overrides:
        words = re.split(r"[/.]", override.key_or_group)
        if words[0] == "hydra" and words[1:2] and words[1] in ("launcher", "sweeper", "sweep"):
            print(f"{override.input_line} has no effect on a single run: -m makes a sweep of it")


def expand_overrides(overrides: Sequence[str], multirun: bool) -> list[str]:
    """Write out our short forms, and distributions where they can be swept.

    Args:
        overrides: as on the command line.
        multirun: whether they ask for a sweep.
    """
    expanded = expand_short_forms(overrides)
    if multirun:
        from truerisk.sweeps.sweeper.axis import quote_distributions

        expanded = quote_distributions(expanded)
    return expand_resume(expanded, multirun)


def _asks_for_information(given: argparse.Namespace) -> bool:
    return bool(given.help or given.hydra_help or given.cfg or given.shell_completion or given.info)


def _show_information(
    hydra: Any, name: str, parser: argparse.ArgumentParser, given: argparse.Namespace
) -> None:
    """Show help, a configuration or completions, as Hydra does; nothing is run."""
    if given.help:
        hydra.app_help(name, parser, given)
    elif given.hydra_help:
        hydra.hydra_help(name, parser, given)
    elif given.cfg:
        try:
            hydra.show_cfg(name, given.overrides, given.cfg, given.package, given.resolve)
        except OmegaConfBaseException as error:
            raise explain_unresolved(error) from error
    elif given.shell_completion:
        with unread_help():
            hydra.shell_completion(name, given.overrides)
    else:
        hydra.show_info(given.info, name, given.overrides)


def _run_once(loader: ConfigLoader, name: str, cfg: DictConfig) -> int:
    """Run a composed configuration as a job of Hydra's; returns the exit code."""
    from truerisk.engine.peers import run_with_peers
    from truerisk.fit import read_trainer

    resolve_config(cfg)  # what is missing is told before a folder is made
    if not str(cfg.hydra.run.dir).strip():
        raise ConfigError("hydra.run.dir is empty: name the folder of the run, or leave it out")
    with run_with_peers(read_trainer(cfg)) as peers:
        if peers is None:
            return _run_job(loader, name, cfg)
        if peers.join_run():
            # the first process names the folder for all
            cfg.hydra.run.dir = peers.told.get("folder", str(cfg.hydra.run.dir))
            peers.code = _run_job(loader, name, cfg)
    return peers.code


def _run_job(loader: ConfigLoader, name: str, cfg: DictConfig) -> int:
    from truerisk.sweeps.launcher.launcher import read_job_outcome

    # Hydra leaves it open until it runs the job itself
    cfg.hydra.mode = RunMode.RUN
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    callbacks = make_callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=name)
    try:
        job = run_job(
            task_function=train_job,
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(loader, callbacks),
        )
    except OSError as error:
        raise _unwritable_folder("hydra.run.dir", error) from error
    callbacks.on_run_end(config=cfg, config_name=name, job_return=job)
    outcome = read_job_outcome(job)
    if outcome.status == "refused":
        raise ConfigError(outcome.reason)
    return outcome.code


def _unwritable_folder(key: str, error: OSError) -> ConfigError:
    return ConfigError(f"{key}: cannot write {error.filename}: {error.strerror}")


def _run_sweep(
    loader: ConfigLoader, name: str, overrides: list[str], shared: DictConfig
) -> tuple[int, list[Outcome]]:
    """Run a sweep and count how its runs ended; it fails if one failed or none finished."""
    from truerisk.engine.peers import refuse_sweep
    from truerisk.sweeps.sweep import Sweep, is_own_sweeper

    refuse_sweep([shared.get("trainer") or {}])
    has_functions = True
    try:
        if is_own_sweeper(shared.hydra.sweeper):
            sweep = Sweep(loader, name, overrides, shared)
            outcomes = sweep.run(train_job)
            has_functions = sweep.has_functions
        else:
            outcomes = _run_foreign_sweeper(loader, name, overrides, shared)
    except OSError as error:
        raise _unwritable_folder("hydra.sweep.dir", error) from error
    except SystemExit as end:
        if end.code in INTERRUPTED.values():
            print("interrupted; the same command again goes on from here", file=sys.stderr)
        raise
    folder = Path(shared.hydra.sweep.dir)
    _tell_count(outcomes)
    if has_functions:  # to look for them takes as long as to read all that is there
        _draw_contours(folder)
    statuses = {outcome.status for outcome in outcomes}
    codes = {outcome.code for outcome in outcomes}
    if _ends_with_page(shared) and statuses & {"finished", "diverged"} and not _write_page(folder):
        codes.add(EXIT["refused"])
    # a run that diverges is an answer; one that failed or was refused is not
    bad = codes - {EXIT["finished"], EXIT["diverged"]}
    code = 0
    if bad:
        code = min(bad)
    elif codes == {EXIT["diverged"]}:
        code = EXIT["diverged"]
    return code, outcomes


def _run_foreign_sweeper(
    loader: ConfigLoader, name: str, overrides: list[str], shared: DictConfig
) -> list[Outcome]:
    """Run the sweep of a Hydra plugin, which composes and launches its jobs itself."""
    from truerisk.sweeps.run_cell import REFUSALS
    from truerisk.sweeps.study_folder import name_study
    from truerisk.sweeps.sweep_cell import strip_hash

    # the axes are known to the plugin alone, which must be told of the study and of the sweep
    study = quote_override(name_study(shared, []))
    told = [*overrides, "hydra.mode=MULTIRUN", f"study={study}"]
    outcomes = list(_find_outcomes(make_hydra(loader).multirun(name, train_job, told)))
    for outcome in outcomes:
        if outcome.status == "refused" and outcome.folder:  # of a worker's cell, too
            REFUSALS.note(strip_hash(outcome.folder), outcome.reason)
    REFUSALS.tell()
    return outcomes


def _find_outcomes(returned: Any) -> Iterator[Outcome]:
    """Find outcomes in whatever a sweeper returns: lists of jobs, or nothing to go by."""
    if isinstance(returned, JobReturn):
        returned = returned.return_value
    if isinstance(returned, Outcome):
        yield returned
    elif isinstance(returned, list | tuple):
        for item in returned:
            yield from _find_outcomes(item)


def _tell_count(outcomes: Sequence[Outcome]) -> None:
    """Print how many runs ended how; nothing where none is known of."""
    if not outcomes:
        return
    counts = Counter(outcome.status for outcome in outcomes)
    ended = ", ".join(f"{n} {STATUS_WORDS.get(status, status)}" for status, n in counts.items())
    line = f"{format_count(len(outcomes), 'run')}: {ended}"
    before = sum(not outcome.new for outcome in outcomes if outcome.status != "elsewhere")
    if before:
        line += f" ({before} of them before)"
    print(line, flush=True)


def _draw_contours(folder: Path) -> None:
    """Draw the paths on each test function in one figure."""
    from truerisk.show.contour import save_contours

    for path in save_contours(folder):
        print(f"figure  {path}")


def draw_figures(folders: Sequence[Path]) -> int:
    """Draw the figures of every run below folders, and those that compare the paths of a sweep.

    Args:
        folders: of runs or sweeps.

    Returns:
        How many runs could not be drawn; each is told to stderr.

    Raises:
        UserError: there is no run below one of the folders.
    """
    from truerisk.reports.run_records import find_run_folders
    from truerisk.result import RunResult
    from truerisk.show.figure import draw_result

    failures = 0
    for folder in folders:
        runs = [RunResult(path) for path in find_run_folders(folder)]
        if not runs:
            raise UserError(f"draw: there is no run in {folder}")
        for run in runs:
            try:
                run.run.tell_losses()  # a curve that was cut off is drawn like any other
                draw_result(run, run.config)
            except Exception as error:
                # whatever is wrong with one run's files, the others are still worth a figure
                print(f"error: {run.folder}: {join_lines(error)}", file=sys.stderr)
                failures += 1
            else:
                print(f"figures  {run.run.figures}")
        _draw_contours(folder)
    return failures


def _ends_with_page(shared: DictConfig) -> bool:
    """Tell whether a sweep ends with a page: test functions have no risks to report."""
    return shared.report and config_has_samples(str(shared.data.get("_target_")))


def _write_page(folder: Path) -> bool:
    """Write the report of the study; tells whether every run of it could be read.

    Where there can be none, the sweep stands all the same.
    """
    from truerisk.reports.study_report import print_summary, write_report

    try:
        written = write_report([folder])
    except UserError as error:
        print(f"no report: {error}", file=sys.stderr)
        return True
    print_summary(written, refusals=False)
    return not written.study.unreadable


def train_job(cfg: DictConfig) -> Outcome:
    """Train in the folder that Hydra has made: what a job of a run or a sweep does.

    Args:
        cfg: the job's configuration, without Hydra's node.

    Returns:
        How it ended; a mistake is an outcome too, since an error would end a whole sweep.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        return _train_cell(cfg, folder, list(hydra.overrides.task))
    from truerisk.fit import train_config
    from truerisk.sweeps.sweep_cell import outcome_of_result

    try:
        result = train_config(cfg, folder=folder)
    except UserError as error:
        if not cfg.resume:
            _remove_if_empty(folder)
        return Outcome(float("nan"), "refused", str(error))
    result.report()
    return outcome_of_result(result)


def _train_cell(cfg: DictConfig, folder: Path, overrides: list[str]) -> Outcome:
    """Train a cell of a sweep, and tell of it in one line."""
    from truerisk.engine.peers import run_with_peers
    from truerisk.sweeps.run_cell import follow_cell, run_cell, tell_outcome
    from truerisk.sweeps.study_folder import place_cell

    with run_with_peers(cfg.trainer) as peers:
        if peers is not None and peers.rank > 0:
            return follow_cell(cfg, peers)
        try:
            # a job of a plugin is composed where it runs, and may be wrong there
            folder = place_cell(resolve_config(cfg), folder, overrides)
            outcome = run_cell(cfg, folder, {"overrides": overrides})
        except UserError as error:
            outcome = Outcome(float("nan"), "refused", str(error), folder=folder)
        begun = outcome.folder or folder
        tell_outcome(outcome, begun)
        if outcome.status == "refused" or begun != folder:
            _remove_if_empty(folder)
        if outcome.status == "interrupted":
            raise SystemExit(outcome.code)  # not an error, which Hydra would keep for later
        if peers is not None:
            peers.code = outcome.code
        return outcome


def _remove_if_empty(folder: Path) -> None:
    """Take back the folder Hydra made for a run that never began, and the day's around it."""
    for path in (folder, folder.parent):
        if path == Path.cwd():
            return
        # one with anything in it stays, and another process of the run may have been here first
        with suppress(OSError):
            path.rmdir()
