"""Which cell a configuration is: a hash of all that changes its result, and a name to read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

IGNORED = frozenset(
    {"logger", "threads", "checkpoint_seconds", "resume", "study", "figures", "report", "hydra"}
)
"""Keys that say where and how fast a run goes, and who else is told of it."""
IGNORED_IN_DATA = frozenset({"in_memory", "workers", "cache"})
"""How samples get into memory."""
DIGITS = 10
LONGEST = 120
"""Characters of a folder's name before its hash; file systems take 255 bytes."""


def fingerprint(config: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of the SHA-256 of a plain, resolved configuration.

    Left out is what does not change the result: loggers, threads, checkpoint times, paths of the
    run itself. What does stays in: diagnostics, as what they saw is part of it, and the device and
    the precision, which change the last digits. The order of keys does not count, but that of
    regularizers does: they edit the batch one after another. ``1`` and ``1.0`` differ, as they do
    for ``data.test``.

    >>> fingerprint({"a": 1, "b": 2, "threads": 4}) == fingerprint({"b": 2, "a": 1})
    True
    """
    kept: dict[str, Any] = {key: node for key, node in config.items() if key not in IGNORED}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = _reading_left_out(kept["data"])
    if isinstance(kept.get("regularizer"), Mapping):
        kept["regularizer"] = list(kept["regularizer"].items())
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _reading_left_out(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: node for key, node in data.items() if key not in IGNORED_IN_DATA}
    if isinstance(kept.get("source"), Mapping):
        kept["source"] = {k: v for k, v in kept["source"].items() if k not in IGNORED_IN_DATA}
    return kept


def slug(overrides: Sequence[str]) -> str:
    """The overrides as part of a folder's name.

    >>> slug(["optimizer=sgd", "seed.base=3", "regularizer=[l2,dropout]", "data.source.path='a/b'"])
    'optimizer=sgd,seed=3,regularizer=l2+dropout,data.source.path=a-b'
    """
    named = [re.sub(r"^(\+{0,2})seed\.base=", r"\1seed=", text) for text in overrides]
    inner = [text.strip("+~").replace(",", "+") for text in named]
    clean = [re.sub(r"[^\w.=+-]+", "-", re.sub(r"[\[\]{}'\"]", "", text)) for text in inner]
    return ",".join(clean)[:LONGEST].rstrip("-,.") or "run"
