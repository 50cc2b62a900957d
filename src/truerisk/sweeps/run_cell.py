"""One cell, run once: begun, gone on with, or left alone; in several processes if it asks so.

As a program, ``python -m truerisk.sweeps.run_cell FOLDER SCRATCH PARENT``, this is one process of a
cell that trains in several (DDP, FSDP).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from truerisk.core.atomic_files import spell_numbers, write_atomic
from truerisk.core.errors import (
    FAULTS,
    ProcessLost,
    UserError,
    describe_bug,
    describe_error,
    list_own_lines,
)
from truerisk.core.stop import read_stop
from truerisk.core.yaml_files import format_yaml
from truerisk.engine.peers import Peers, join_peers
from truerisk.engine.signals import end_with_parent, on_stop
from truerisk.outcome import Outcome
from truerisk.risk.measured import read_monitor
from truerisk.run import RunFolder, rank
from truerisk.sweeps.locks import find_begun, lock_cells
from truerisk.sweeps.sweep_cell import DONE, outcome_of_result, read_outcome, strip_hash
from truerisk.task import get_task

ELSEWHERE = Outcome(math.nan, "elsewhere", "another process is at it", new=False)
MOST_SHOWN = 3
"""Cells that are named beside a reason that all of them share."""


class RefusalLog:
    """The cells of a sweep that cannot work: each reason is told once, with the names of its cells.

    Attributes:
        labels: of the cells, in order, by the reason.
        told: how many cells each reason was told of.
        left: whether another process tells them, which started this one and hears of all.
    """

    def __init__(self) -> None:
        self.labels: dict[str, dict[str, None]] = {}
        self.told: dict[str, int] = {}
        self.left = False

    def note(self, label: str, reason: str) -> None:
        """Note that a cell cannot work; again, where that is known, does nothing."""
        self.labels.setdefault(drop_label(reason, label), {})[label] = None

    def tell(self, ended: bool = True) -> None:
        """Print a line to stderr for each reason that has cells which were not told yet.

        Args:
            ended: whether all is over: a reason that was told before is, then, told the rest of.
        """
        for reason, noted in self.labels.items():
            labels, before = list(noted), self.told.get(reason, 0)
            if self.left or before == len(labels) or (before and not ended):
                continue
            said = f"refused as {labels[0]} is" if before else reason
            print(f"error: {shorten_list(labels[before:])}: {said}", file=sys.stderr)
            self.told[reason] = len(labels)

    def clear(self) -> None:
        """Forget those of an earlier sweep."""
        self.labels.clear()
        self.told.clear()


REFUSALS = RefusalLog()


def run_cell(cfg: DictConfig, folder: Path, facts: Mapping[str, Any] | None = None) -> Outcome:
    """Do what is left of a cell, unless it is done or another process is at it.

    A run that was cut off goes on from its last checkpoint, and so does one that failed. A mistake
    or a bug ends this cell alone: the outcome tells.

    Args:
        cfg: the cell's configuration, without Hydra's node.
        folder: of its run.
        facts: what joins the run's metadata.

    Returns:
        How it ended, and in which folder: another command may have begun it under another name;
        `ELSEWHERE` where another process has claimed it.
    """
    with lock_cells([folder]) as locked:
        folder = find_begun([folder], empty=not locked)[folder]
        if not locked:
            return replace(ELSEWHERE, folder=folder)
        # read under the lock: another process may have finished it since the sweep looked
        before = read_outcome(folder)
        if before.status in DONE:
            return replace(before, folder=folder)
        train = _train_here
        if cfg.trainer.get("strategy", "auto") != "auto" and join_peers(cfg.trainer) is None:
            train = spawn_distributed
        return replace(_catch_errors(train, cfg, folder, facts or {}), folder=folder)


def follow_cell(cfg: DictConfig, peers: Peers) -> Outcome:
    """Train in the cell that the first of a job's processes opens; it alone tells and counts.

    Args:
        cfg: the cell's configuration.
        peers: the job's processes, of which this is another one.
    """
    if not peers.join_run():
        return ELSEWHERE
    return _train_here(cfg, Path(peers.told["folder"]), {})


def _train_here(cfg: DictConfig, folder: Path, facts: Mapping[str, Any]) -> Outcome:
    from truerisk import fit

    return outcome_of_result(fit.train_cell(cfg, folder, facts))


def _catch_errors(
    train: Callable[[DictConfig, Path, Mapping[str, Any]], Outcome],
    cfg: DictConfig,
    folder: Path,
    facts: Mapping[str, Any],
) -> Outcome:
    """Train, with a mistake or a bug turned into the outcome of this cell."""
    try:
        return train(cfg, folder, facts)
    except ProcessLost as error:
        end = Outcome(math.nan, "failed", str(error), lost=True)
        trace = end.reason
    except UserError as error:
        end = Outcome(math.nan, "refused", str(error))
        trace = end.reason
    except FAULTS as error:
        # a signal's, or one of the code that began several processes
        if isinstance(error, SystemExit) and not list_own_lines(error):
            raise
        trace = "".join(traceback.format_exception(error))
        fault = describe_bug(error)
        print(fault, file=sys.stderr)
        end = Outcome(math.nan, "failed", describe_error(error), fault=fault)
    if rank() == 0:
        config = format_yaml(cfg)
        RunFolder(folder).record_failure(end.status, trace, config, facts)
    return end


def shorten_list(labels: Sequence[str]) -> str:
    """Name the first cells of a list, and count them where there are more.

    >>> shorten_list(["seed=0", "seed=1"]), shorten_list(["a", "b", "c", "d", "e"])
    ('seed=0, seed=1', 'a, b, c and 2 more (5 cells)')
    """
    named = ", ".join(labels[:MOST_SHOWN])
    if len(labels) > MOST_SHOWN:
        named += f" and {len(labels) - MOST_SHOWN} more ({len(labels)} cells)"
    return named


def drop_label(reason: str, label: str) -> str:
    """Leave out a cell's label where its reason begins with it: it stands before it anyway.

    >>> drop_label("model=fr: there is no such option", "model=fr")
    'there is no such option'
    """
    return reason.removeprefix(f"{label}: ")


def tell_outcome(outcome: Outcome, folder: Path) -> None:
    """Print how a cell ended, in one line; note a refusal, which is told with those of others.

    Args:
        outcome: how it ended.
        folder: of its run; what it is called follows from the name.
    """
    from truerisk.result import RunResult

    label = strip_hash(folder)
    if outcome.status == "refused":
        REFUSALS.note(label, outcome.reason)
        return
    line = f"{label}: {outcome.status}"
    if outcome.reason:
        line += f" ({outcome.reason})"
    if math.isfinite(outcome.value):
        monitor = read_monitor(RunFolder(folder).metadata())
        name = monitor.name
        if name == "risk/val":
            name = get_task(RunResult(folder).task).score_title
        line += f", {name} {monitor.orient(outcome.value):.4g}"
    print(f"{line}  {folder}", flush=True)


def spawn_distributed(cfg: DictConfig, folder: Path, facts: Mapping[str, Any]) -> Outcome:
    """Train a cell in several processes; a signal is passed on to the first of them.

    Args:
        cfg: the cell's configuration.
        folder: of its run.
        facts: what joins the run's metadata.

    Returns:
        How it ended, as the first process has written it down.
    """
    # Lightning starts the other processes by the command that started the first. Here that would
    # be the whole sweep, so the cell gets a command of its own; what training sets in the
    # environment and in process groups ends with it, too.
    with TemporaryDirectory(prefix="truerisk-") as scratch:
        Path(scratch, "config.yaml").write_text(format_yaml(cfg))
        Path(scratch, "facts.json").write_text(json.dumps(facts))
        command = [sys.executable, "-m", __name__, str(folder), scratch, str(os.getpid())]
        # a session of its own: Ctrl-C would reach it beside the signal that is passed on
        process = subprocess.Popen(command, start_new_session=True)
        with on_stop(lambda name: process.send_signal(signal.Signals[name])):
            code = process.wait()
        record = Path(scratch, "outcome.json")
        if record.exists():
            return _decode_outcome(record.read_text())
    # killed, so that it could not write down anything
    reason = f"its process ended with exit code {code}"
    if RunFolder(folder).begun:
        RunFolder(folder).set_status("failed", reason)
    return Outcome(math.nan, "failed", reason, lost=True)


def _encode_outcome(outcome: Outcome) -> str:
    stop = outcome.stop and outcome.stop._asdict()
    fields = {"status": outcome.status, "reason": outcome.reason, "stop": stop}
    fields["fault"] = outcome.fault
    return json.dumps(spell_numbers({"value": outcome.value, **fields}), allow_nan=False)


def _decode_outcome(text: str) -> Outcome:
    record = json.loads(text)
    value = math.nan if record["value"] is None else float(record["value"])
    told = {"stop": read_stop(record), "fault": record["fault"]}
    return Outcome(value, record["status"], record["reason"], **told)


def main() -> int:
    """Train in one of a cell's processes; the first one writes down how it ended."""
    folder, scratch = map(Path, sys.argv[1:3])
    parent = int(sys.argv[3])
    if rank() > 0:  # the first one has started this one, with the same command
        parent = os.getppid()
    end_with_parent(parent)
    cfg = OmegaConf.load(scratch / "config.yaml")
    assert isinstance(cfg, DictConfig)
    facts = json.loads((scratch / "facts.json").read_text())
    outcome = _catch_errors(_train_here, cfg, folder, facts)
    if rank() == 0:  # Lightning has started the others with the same command
        write_atomic(scratch / "outcome.json", _encode_outcome(outcome))
    return outcome.code


if __name__ == "__main__":
    raise SystemExit(main())
