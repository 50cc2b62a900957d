"""``truerisk train``: Hydra run in this process, with exit codes and messages of our own."""

from __future__ import annotations

import argparse
import math
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from truerisk.config.compose import (
    ConfigLoader,
    expand_resume,
    expand_short_forms,
    hydra_session,
    quote_override,
    resolve_config,
)
from truerisk.config.mistakes import explain_unresolved
from truerisk.config.parts import PRIMARY
from truerisk.core.errors import ConfigError, UserError
from truerisk.outcome import EXIT, INTERRUPTED, Outcome


def launch_training(args: Sequence[str]) -> int:
    """Do what the arguments of ``truerisk train`` ask; returns the exit code."""
    parser = get_args_parser()
    parser.prog = "truerisk train"
    given = parser.parse_intermixed_args(list(args))
    if given.experimental_rerun:
        raise UserError("--experimental-rerun is not supported; use resume=FOLDER")
    given.overrides = expand_resume(_read(given.overrides, given.multirun), given.multirun)
    with hydra_session():
        loader = ConfigLoader(given.config_dir, given.config_path)
        return _act(Hydra("truerisk", loader), loader, parser, given)


def _read(overrides: Sequence[str], multirun: bool) -> list[str]:
    """Overrides with our short forms written out."""
    from truerisk.sweeps.sweeper.axis import quote_distributions

    return (
        quote_distributions(expand_short_forms(overrides))
        if multirun
        else expand_short_forms(overrides)
    )


def launch_plan(args: Sequence[str]) -> int:
    """Show what ``truerisk train --multirun`` would do with the same arguments."""
    parser = get_args_parser()
    parser.prog = "truerisk plan"
    given = parser.parse_intermixed_args(list(args))
    overrides = expand_resume(_read(given.overrides, True), multirun=True)
    name = given.config_name or PRIMARY
    with hydra_session():
        loader = ConfigLoader(given.config_dir, given.config_path)
        shared = loader.load_configuration(name, overrides, RunMode.MULTIRUN)
        print("\n".join(_planned(loader, name, overrides, shared)))
    return 0


def _planned(
    loader: ConfigLoader, name: str, overrides: list[str], shared: DictConfig
) -> Iterable[str]:
    from truerisk.sweeps.sweep import Sweep, is_own
    from truerisk.sweeps.sweep_plan import plan_sweep

    if not is_own(shared.hydra.sweeper):
        raise ConfigError("the points of a sweeper that is a Hydra plugin are not known beforehand")
    return plan_sweep(Sweep(loader, name, overrides, shared)).lines()


def _act(
    hydra: Hydra, loader: ConfigLoader, parser: argparse.ArgumentParser, given: argparse.Namespace
) -> int:
    name, overrides = given.config_name or PRIMARY, given.overrides
    if given.help:
        hydra.app_help(name, parser, given)
    elif given.hydra_help:
        hydra.hydra_help(name, parser, given)
    elif given.cfg:
        _show(hydra, name, given)
    elif given.shell_completion:
        hydra.shell_completion(name, overrides)
    elif given.info:
        hydra.show_info(given.info, name, overrides)
    else:
        shared = loader.load_configuration(name, overrides, RunMode.MULTIRUN)
        swept = given.multirun or shared.hydra.mode == RunMode.MULTIRUN
        if swept or shared.get("study") is not None:
            return _sweep(hydra, loader, name, overrides, shared)
        return _run(hydra, name, [*overrides, "hydra.mode=RUN"])
    return 0


def _show(hydra: Hydra, name: str, given: argparse.Namespace) -> None:
    try:
        hydra.show_cfg(name, given.overrides, given.cfg, given.package, given.resolve)
    except OmegaConfBaseException as error:
        raise explain_unresolved(error) from error


def _run(hydra: Hydra, name: str, overrides: list[str]) -> int:
    resolve_config(hydra.compose_config(name, overrides, RunMode.RUN))
    try:
        outcome = hydra.run(name, train_job, overrides).return_value
    except OSError as error:
        if any(
            frame.f_code is train_job.__code__
            for frame, _ in traceback.walk_tb(error.__traceback__)
        ):
            raise
        raise _unwritable("hydra.run.dir", error) from error
    if outcome.status == "refused":
        raise ConfigError(outcome.reason)
    return outcome.code


def _unwritable(key: str, error: OSError) -> ConfigError:
    return ConfigError(f"{key}: cannot write {error.filename}: {error.strerror}")


def _sweep(
    hydra: Hydra, loader: ConfigLoader, name: str, overrides: list[str], shared: DictConfig
) -> int:
    """Count how the runs of a sweep ended; it succeeds unless one failed or none finished."""
    from truerisk.sweeps.sweep import Sweep, is_own

    try:
        if is_own(shared.hydra.sweeper):
            outcomes = Sweep(loader, name, overrides, shared).run(train_job)
        else:
            outcomes = list(
                _outcomes(hydra.multirun(name, train_job, [*overrides, *_named(shared)]))
            )
    except OSError as error:
        raise _unwritable("hydra.sweep.dir", error) from error
    except SystemExit as end:
        if end.code in INTERRUPTED.values():
            print("interrupted; the same command again goes on from here", file=sys.stderr)
        raise
    folder = Path(shared.hydra.sweep.dir)
    _count(outcomes)
    _compare(folder)
    if _has_page(shared, {outcome.status for outcome in outcomes}):
        _page(folder)
    codes = {outcome.code for outcome in outcomes}
    bad = codes - {EXIT["finished"], EXIT["diverged"]}
    if bad:
        return min(bad)
    return 0 if 0 in codes or not codes else EXIT["diverged"]


def _named(shared: DictConfig) -> list[str]:
    """What a sweeper of others needs to know: the study, and that it is a sweep."""
    from truerisk.sweeps.study_folder import study_name

    return ["hydra.mode=MULTIRUN", f"study={quote_override(study_name(shared, []))}"]


IN_WORDS = {"elsewhere": "being trained by another command"}


def _count(outcomes: Sequence[Outcome]) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    before = sum(not outcome.new for outcome in outcomes if outcome.status != "elsewhere")
    if outcomes:
        done = f" ({before} of them before)" if before else ""
        ended = ", ".join(f"{n} {IN_WORDS.get(status, status)}" for status, n in counts.items())
        runs = "run" if len(outcomes) == 1 else "runs"
        print(f"{len(outcomes)} {runs}: {ended}{done}", flush=True)


def _compare(folder: Path) -> None:
    """Draw the paths on each test function in one figure."""
    from truerisk.show.contour import save_contours

    for path in save_contours(folder):
        print(f"figure  {path}")


def _has_page(shared: DictConfig, statuses: set[str]) -> bool:
    """Whether the sweep ends with a page: test functions have no risks to report."""
    samples = not str(shared.data._target_).endswith(".NoData")
    return shared.report and samples and bool(statuses & {"finished", "diverged"})


def _page(folder: Path) -> None:
    """What `truerisk report` says of the study; where it cannot, the sweep stands all the same."""
    from truerisk.reports.report import tell, write_report

    try:
        tell(write_report([folder]))
    except UserError as error:
        print(f"no report: {error}", file=sys.stderr)


def _outcomes(returned: Any) -> Iterable[Outcome]:
    """The outcomes in whatever a sweeper returns: lists of jobs, or nothing to go by."""
    if isinstance(returned, JobReturn):
        returned = returned.return_value
    if isinstance(returned, Outcome):
        yield returned
    elif isinstance(returned, list | tuple):
        for item in returned:
            yield from _outcomes(item)


def train_job(cfg: DictConfig) -> Outcome:
    """One job: train in Hydra's output folder."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        return _cell(cfg, folder, hydra)
    return _train(cfg, folder)


def _train(cfg: DictConfig, folder: Path) -> Outcome:
    from truerisk.sweeps.sweep_cell import outcome_of_result

    try:
        resolve_config(cfg)
        from truerisk.fit import train_config

        result = train_config(cfg, folder=folder)
    except UserError as error:
        if not cfg.resume:
            _remove_if_empty(folder)
        return Outcome(float("nan"), "refused", str(error))
    result.report()
    return outcome_of_result(result)


def _cell(cfg: DictConfig, folder: Path, hydra: Any) -> Outcome:
    """One job of a sweep, and one line about it."""
    from truerisk.sweeps.run_cell import run_cell
    from truerisk.sweeps.study_folder import place_cell

    overrides = list(hydra.overrides.task)
    try:
        folder = place_cell(resolve_config(cfg), folder, overrides)
        outcome = run_cell(cfg, folder, {"overrides": overrides})
    except UserError as error:
        outcome = Outcome(float("nan"), "refused", str(error))
    _tell(outcome, folder)
    if outcome.status == "refused":
        _remove_if_empty(folder)
    if outcome.status == "interrupted":
        raise SystemExit(outcome.code)
    return outcome


def _tell(outcome: Outcome, folder: Path) -> None:
    from truerisk.result import RunResult
    from truerisk.sweeps.sweep_cell import strip_hash

    if outcome.status == "refused":
        print(f"error: {strip_hash(folder)}: {outcome.reason}", file=sys.stderr)
        return
    why = f" ({outcome.reason})" if outcome.reason else ""
    name = "value" if RunResult(folder).task == "function" else "risk/val"
    value = f", {name} {outcome.value:.4g}" if math.isfinite(outcome.value) else ""
    print(f"{strip_hash(folder)}: {outcome.status}{why}{value}  {folder}", flush=True)


def _remove_if_empty(folder: Path) -> None:
    """Take back the folder Hydra made for a run that never began, and the day's around it."""
    for path in (folder, folder.parent):
        if path == Path.cwd() or (path.is_dir() and any(path.iterdir())):
            return
        if path.is_dir():
            path.rmdir()
