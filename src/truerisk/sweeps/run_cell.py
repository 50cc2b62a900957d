"""A cell that trains in several processes (DDP, FSDP), from a command of its own.

Lightning starts the other processes by the command that started the first. In a sweep that would
be the sweep, so the cell gets one: ``python -m truerisk.sweeps.run_cell FOLDER ERRAND``. It leaves
the variables and process groups of its training behind when it ends, too.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from truerisk.core.errors import UserError
from truerisk.core.files import write_atomic
from truerisk.engine.signals import on_stop
from truerisk.outcome import INTERRUPTED, Outcome
from truerisk.run import RunFolder, rank
from truerisk.sweeps.locks import lock_cells
from truerisk.sweeps.sweep_cell import DONE, outcome_of_result, read_outcome


def spawn_distributed(cfg: DictConfig, folder: Path, facts: Mapping[str, Any]) -> Outcome:
    """Train a cell in processes of its own; a signal is passed on to the first of them."""
    with TemporaryDirectory(prefix="truerisk-") as errand:
        Path(errand, "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        Path(errand, "facts.json").write_text(json.dumps(facts))
        command = [sys.executable, "-m", __name__, str(folder), errand]
        process = subprocess.Popen(command, start_new_session=True, env=_environment())
        with on_stop(lambda name: process.send_signal(_number(name))):
            code = process.wait()
        found = Path(errand, "outcome.json")
        if found.exists():
            return Outcome(**json.loads(found.read_text()))
    reason = f"its process ended with exit code {code}"
    if RunFolder(folder).config.exists():
        RunFolder(folder).set_status("failed", reason)
    return Outcome(math.nan, "failed", reason)


def _environment() -> dict[str, str]:
    """This one's; a SLURM job of one task must start the other processes itself."""
    alone = os.environ.get("SLURM_NTASKS") == "1"
    return {k: v for k, v in os.environ.items() if not (alone and k == "SLURM_NTASKS")}


def _number(name: str) -> int:
    return INTERRUPTED[name] - 128


def main() -> int:
    """In each of the processes; the first writes down how it ended."""
    from truerisk import fit

    folder, errand = map(Path, sys.argv[1:])
    cfg = OmegaConf.load(errand / "config.yaml")
    assert isinstance(cfg, DictConfig)
    facts = json.loads((errand / "facts.json").read_text())
    try:
        ended = outcome_of_result(fit.train_cell(cfg, folder, facts))
    except UserError as error:
        ended = Outcome(math.nan, "refused", str(error))
    except Exception as error:
        traceback.print_exc()
        ended = Outcome(math.nan, "failed", f"{type(error).__name__}: {error}")
    if rank() == 0:
        record = {"value": ended.value, "status": ended.status, "reason": ended.reason}
        write_atomic(errand / "outcome.json", json.dumps(record))
    return ended.code


if __name__ == "__main__":
    raise SystemExit(main())


ELSEWHERE = Outcome(math.nan, "elsewhere", "another process is at it", new=False)


def run_cell(cfg: DictConfig, folder: Path, facts: Mapping[str, Any] | None = None) -> Outcome:
    """Do what is left of a cell, unless it is done or another process is at it.

    A run that was cut off goes on from its last checkpoint, and so does one that failed. A mistake
    or a bug ends this cell alone: the outcome tells.
    """
    with lock_cells([folder]) as mine:
        if not mine:
            return ELSEWHERE
        before = read_outcome(RunFolder(folder))
        return before if before.status in DONE else _go(cfg, folder, facts or {})


def _go(cfg: DictConfig, folder: Path, facts: Mapping[str, Any]) -> Outcome:
    from truerisk import fit

    try:
        if cfg.trainer.get("strategy", "auto") != "auto":
            return spawn_distributed(cfg, folder, facts)
        return outcome_of_result(fit.train_cell(cfg, folder, facts))
    except UserError as error:
        return Outcome(math.nan, "refused", str(error))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return Outcome(math.nan, "failed", f"{type(error).__name__}: {error}")
