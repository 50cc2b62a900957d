"""The command line that trains one run of a sweep again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MISSING = object()


def command_line(command: Sequence[str], config: Mapping[str, Any]) -> str:
    """The recorded command with this run's own values in place of those that were swept.

    >>> swept = ["/bin/truerisk", "train", "-m", "optimizer=sgd,adam", "seed=range(5)"]
    >>> command_line(swept, {"choices": {"optimizer": "adam"}, "seed": {"base": 3}})
    'truerisk train optimizer=adam seed=3'
    """
    words = list(command[1:])
    if not words or words[0] != "train":
        return shlex.join(["python", *command]) if command else ""
    kept = [word for word in words if word not in ("-m", "--multirun")]
    kept = [word for word in kept if not word.startswith(("hydra.", "hydra/", "study="))]
    return shlex.join(["truerisk", *(_own(word, config) for word in kept)])


def completed(command: str, keys: Iterable[str], config: Mapping[str, Any]) -> str:
    """The command with the values of ``keys`` and the seed, where it does not give them.

    A sweeper may take its axes from a file, and the command line says nothing of them.

    >>> config = {"choices": {}, "optimizer": {"lr": 0.1}, "seed": {"base": 3}}
    >>> completed("truerisk train data=iris", ["optimizer.lr"], config)
    'truerisk train data=iris optimizer.lr=0.1 seed=3'
    """
    if not command.startswith("truerisk train"):
        return command
    given = {word.lstrip("+").partition("=")[0] for word in shlex.split(command)}
    given |= {"seed"} & {key.partition(".")[0] for key in given}
    named = [key.removeprefix("choices.") for key in (*keys, "seed") if "_target_" not in key]
    values = {key: _value(key, config) for key in named if key not in given}
    more = [f"{key}={value}" for key, value in values.items() if value is not _MISSING]
    return " ".join([command, *map(shlex.quote, more)])


def _own(word: str, config: Mapping[str, Any]) -> str:
    """An override with the value this run has; what is no sweep stays as it was written."""
    found = re.fullmatch(r"(\+{0,2})([\w./@]+)=(.*)", word, re.S)
    if found is None or not re.search(r"[,(]", found[3]):
        return word
    sign, key, _ = found.groups()
    value = _value(key, config)
    return word if value is _MISSING else f"{sign}{key}={value}"


def _value(key: str, config: Mapping[str, Any]) -> Any:
    """What a run's config says of a key or a group, as an override writes it."""
    if key in (config.get("choices") or {}):
        return config["choices"][key]
    node: Any = config
    for part in ("seed.base" if key == "seed" else key).split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _MISSING
        node = node[part]
    if isinstance(node, Mapping):  # a group of which any number is chosen
        named = key in ("regularizer", "diagnostics", "logger")
        return f"[{','.join(node)}]" if named else _MISSING
    return _written(node)


def _written(value: Any) -> Any:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(str(_written(v)) for v in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./:@%-]+", value):
        return f"'{value}'"
    return value
