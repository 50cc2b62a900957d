"""``truerisk train``: Hydra run in this process, with exit codes and messages of our own."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from truerisk.config import Loader, normalize, resolved, session
from truerisk.errors import ConfigError, UserError
from truerisk.mistakes import unresolved
from truerisk.parts import PRIMARY, existing

if TYPE_CHECKING:
    from truerisk.result import RunResult

EXIT = {"finished": 0, "failed": 1, "refused": 2, "diverged": 3}
INTERRUPTED = {"SIGINT": 130, "SIGTERM": 143}


class Outcome(float):
    """The best validation risk (NaN where there is none), as sweepers want it, and how it came."""

    def __new__(cls, value: float, status: str, reason: str = "") -> Outcome:
        """A number that remembers a run's status and the reason for it."""
        made = super().__new__(cls, value)
        made.status, made.reason = status, reason
        return made

    status: str
    reason: str

    def __getnewargs__(self) -> tuple[float, str, str]:  # type: ignore[override]
        return float(self), self.status, self.reason

    @property
    def code(self) -> int:
        """The exit code of a run that ended so."""
        if self.status == "interrupted":
            return next((c for name, c in INTERRUPTED.items() if name in self.reason), 130)
        return EXIT.get(self.status, 1)


def launch(args: Sequence[str]) -> int:
    """Do what the arguments of ``truerisk train`` ask; returns the exit code."""
    parser = get_args_parser()
    parser.prog = "truerisk train"
    given = parser.parse_intermixed_args(list(args))
    if given.experimental_rerun:
        raise UserError("--experimental-rerun is not supported; use resume=FOLDER")
    given.overrides = resuming(normalize(given.overrides), given.multirun)
    with session():
        loader = Loader(given.config_dir, given.config_path)
        return _act(Hydra("truerisk", loader), loader, parser, given)


def _act(
    hydra: Hydra, loader: Loader, parser: argparse.ArgumentParser, given: argparse.Namespace
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
        if given.multirun or shared.hydra.mode == RunMode.MULTIRUN:
            folder = str(shared.hydra.sweep.dir)
            fixed = ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(folder)}"]
            return _sweep(hydra, name, [*overrides, *fixed], Path(folder))
        return _run(hydra, name, [*overrides, "hydra.mode=RUN"])
    return 0


def _show(hydra: Hydra, name: str, given: argparse.Namespace) -> None:
    try:
        hydra.show_cfg(name, given.overrides, given.cfg, given.package, given.resolve)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error


def _run(hydra: Hydra, name: str, overrides: list[str]) -> int:
    resolved(hydra.compose_config(name, overrides, RunMode.RUN))
    try:
        outcome = hydra.run(name, task, overrides).return_value
    except OSError as error:
        if any(
            frame.f_code is task.__code__ for frame, _ in traceback.walk_tb(error.__traceback__)
        ):
            raise
        raise _unwritable("hydra.run.dir", error) from error
    if outcome.status == "refused":
        raise ConfigError(outcome.reason)
    return outcome.code


def _unwritable(key: str, error: OSError) -> ConfigError:
    return ConfigError(f"{key}: cannot write {error.filename}: {error.strerror}")


def _sweep(hydra: Hydra, name: str, overrides: list[str], folder: Path) -> int:
    """Count how the runs of a sweep ended; it succeeds unless one failed or none finished."""
    try:
        outcomes = list(_outcomes(hydra.multirun(name, task, overrides)))
    except ConfigError:
        plan = folder / "multirun.yaml"
        if plan.exists() and list(folder.iterdir()) == [plan]:
            plan.unlink()
            _remove_if_empty(folder)
        raise
    except OSError as error:
        raise _unwritable("hydra.sweep.dir", error) from error
    counts = Counter(outcome.status for outcome in outcomes)
    if outcomes:
        print(f"{len(outcomes)} runs: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    codes = {outcome.code for outcome in outcomes}
    bad = codes - {EXIT["finished"], EXIT["diverged"]}
    if bad:
        return min(bad)
    return 0 if 0 in codes or not codes else EXIT["diverged"]


def _outcomes(returned: Any) -> Iterable[Outcome]:
    """The outcomes in whatever a sweeper returns: lists of jobs, or nothing to go by."""
    if isinstance(returned, JobReturn):
        returned = returned.return_value
    if isinstance(returned, Outcome):
        yield returned
    elif isinstance(returned, list | tuple):
        for item in returned:
            yield from _outcomes(item)


def task(cfg: DictConfig) -> Outcome:
    """One job: train in Hydra's output folder."""
    hydra = HydraConfig.get()
    sweeping = hydra.mode == RunMode.MULTIRUN
    label = f"#{hydra.job.num} {' '.join(hydra.overrides.task)}: " if sweeping else ""
    try:
        outcome = _train(cfg, Path(hydra.runtime.output_dir), label)
    except Exception:
        if not sweeping:
            raise
        traceback.print_exc()
        outcome = Outcome(float("nan"), "failed")
    if sweeping and outcome.status == "interrupted":
        raise SystemExit(outcome.code)
    return outcome


def _train(cfg: DictConfig, folder: Path, label: str) -> Outcome:
    try:
        resolved(cfg)
        from truerisk.training import train_config

        result = train_config(cfg, folder=folder)
    except UserError as error:
        if not cfg.resume:
            _remove_if_empty(folder)
        if label:
            print(f"error: {label}{error}", file=sys.stderr)
        return Outcome(float("nan"), "refused", str(error))
    risk = result.summary.get("risk/val") if result.status != "diverged" else None
    outcome = Outcome(risk.value if risk else float("nan"), result.status, result.reason)
    _tell(result, outcome, label)
    return outcome


def _tell(result: RunResult, outcome: Outcome, label: str) -> None:
    if not label:
        result.report()
        return
    why = f" ({outcome.reason})" if outcome.reason else ""
    name = "value" if result.task == "function" else "risk/val"
    print(f"{label}{outcome.status}{why}, {name} {float(outcome):.4g}  {result.folder}", flush=True)


def _remove_if_empty(folder: Path) -> None:
    """Take back the folder Hydra made for a run that never began, and the day's around it."""
    for path in (folder, folder.parent):
        if path == Path.cwd() or (path.is_dir() and any(path.iterdir())):
            return
        if path.is_dir():
            path.rmdir()


def resuming(overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """The overrides; with ``resume=FOLDER`` among them, those that let Hydra work in that folder.

    Raises:
        UserError: the folder is missing, or something else is asked for at once.
    """
    named = [m[1] for o in overrides if (m := re.fullmatch(r"\+{0,2}resume=(.*)", o, re.S))]
    value = named[-1].strip("'\"") if named else "null"
    if value in ("null", ""):
        return list(overrides)
    hydra = [o for o in overrides if o.lstrip("+~").startswith("hydra")]
    others = [o for o in overrides if o not in hydra and "resume" not in o.partition("=")[0]]
    if others or multirun:
        what = others[0] if others else "--multirun"
        raise UserError(f"resume goes on with a run as it was configured; leave out {what}")
    folder = existing(value, "resume")
    return [*hydra, *(f"{key}={quoted(str(folder))}" for key in ("resume", "hydra.run.dir"))]


def quoted(text: str) -> str:
    """The text as a string in Hydra's override grammar.

    >>> print(quoted("lr=0.1, it's"))
    "lr=0.1, it's"
    """
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"
