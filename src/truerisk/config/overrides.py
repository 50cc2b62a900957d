"""Overrides: our short forms written out for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence

from truerisk.config.parts import existing
from truerisk.core.errors import UserError


def normalize(args: Sequence[str]) -> list[str]:
    """Rewrite ``seed=3`` (also ``seed=1,2`` and ``seed=range(20)``) as ``seed.base=3``.

    >>> normalize(["seed=range(20)", "optimizer=sgd"])
    ['seed.base=range(20)', 'optimizer=sgd']
    """
    return [re.sub(r"^(\+{0,2})seed=(?!\s*\{)", "seed.base=", arg) for arg in args]


def quoted(text: str) -> str:
    """The text as a string in Hydra's override grammar.

    >>> print(quoted("lr=0.1, it's"))
    "lr=0.1, it's"
    """
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"


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
