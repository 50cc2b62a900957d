"""One cell, done once: begun, gone on with, or left alone."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from truerisk.core.errors import UserError
from truerisk.outcome import Outcome
from truerisk.run import RunFolder
from truerisk.sweeps.cell import DONE, outcome, recorded
from truerisk.sweeps.claim import claim
from truerisk.sweeps.ranks import in_processes

ELSEWHERE = Outcome(math.nan, "elsewhere", "another process is at it", new=False)


def attempt(cfg: DictConfig, folder: Path, facts: Mapping[str, Any] | None = None) -> Outcome:
    """Do what is left of a cell, unless it is done or another process is at it.

    A run that was cut off goes on from its last checkpoint, and so does one that failed. A mistake
    or a bug ends this cell alone: the outcome tells.
    """
    with claim([folder]) as mine:
        if not mine:
            return ELSEWHERE
        before = recorded(RunFolder(folder))
        return before if before.status in DONE else _go(cfg, folder, facts or {})


def _go(cfg: DictConfig, folder: Path, facts: Mapping[str, Any]) -> Outcome:
    from truerisk import fit

    try:
        if cfg.trainer.get("strategy", "auto") != "auto":
            return in_processes(cfg, folder, facts)
        return outcome(fit.train_cell(cfg, folder, facts))
    except UserError as error:
        return Outcome(math.nan, "refused", str(error))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return Outcome(math.nan, "failed", f"{type(error).__name__}: {error}")
