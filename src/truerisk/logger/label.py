"""Names and tags for a run, out of its config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMED_GROUPS = ("data", "model", "optimizer")
CELL = re.compile(r"-[0-9a-f]{10}$")
"""How the name of a sweep's cell ends: with the hash of its configuration."""
LONGEST_TAG = 64
"""Characters that W&B takes in a tag."""


def option_name(config: Mapping[str, Any], group: str) -> str | None:
    """Name what a group was set to: its option where the config says it, else its target.

    Args:
        config: a run's resolved config.
        group: a config group, such as ``model``.

    Returns:
        The name in lower case; None where the group is empty.

    >>> option_name({"model": {"_target_": "truerisk.model.MLP", "width": 100}}, "model")
    'mlp'
    >>> option_name({"choices": {"model": "mlp_small"}, "model": {}}, "model")
    'mlp_small'
    """
    chosen = (config.get("choices") or {}).get(group)
    if chosen:
        return str(chosen)
    node = config.get(group)
    if not isinstance(node, Mapping):
        return None
    # the target of all data sets is the same: they differ in their source
    target = (node.get("source") or node).get("_target_")
    if target is None:
        return None
    return str(target).rpartition(".")[2].lower()


def recipe_name(config: Mapping[str, Any]) -> str:
    """Join the names of data, model and optimizer.

    >>> recipe_name({"choices": {"data": "mnist1d", "model": "mlp", "optimizer": "adam"}})
    'mnist1d-mlp-adam'
    """
    return "-".join(filter(None, (option_name(config, group) for group in NAMED_GROUPS))) or "run"


def recipe_tags(config: Mapping[str, Any]) -> list[str]:
    """List the names of data, model, optimizer and every regularizer.

    >>> recipe_tags({"choices": {"data": "iris", "model": "linear"}, "regularizer": {"l2": {}}})
    ['iris', 'linear', 'l2']
    """
    parts = [option_name(config, group) for group in NAMED_GROUPS]
    return list(dict.fromkeys([*filter(None, parts), *(config.get("regularizer") or {})]))


def seed_tags(config: Mapping[str, Any]) -> list[str]:
    """List the seeds that were given: that of all streams, and those of single ones.

    >>> seed_tags({"seed": {"base": 3, "init": None, "order": 7}})
    ['seed=3', 'seed.order=7']
    """
    seeds = dict(config.get("seed") or {})
    given = {"seed": seeds.pop("base", None), **{f"seed.{k}": v for k, v in seeds.items()}}
    return [f"{name}={seed}" for name, seed in given.items() if seed is not None]


def find_study(folder: Path) -> str | None:
    """Name the study that a run's folder is a cell of; None for a run by itself.

    >>> find_study(Path("outputs/optimizer+seed/optimizer=sgd,seed=3-0123456789"))
    'optimizer+seed'
    >>> find_study(Path("outputs/2030-01-01/12-00-00-000000"))
    """
    return folder.parent.name if CELL.search(folder.name) else None


def describe_recipe(config: Mapping[str, Any], folder: Path) -> str:
    """Name a recipe without its seed: runs that differ in their seeds alone have one name.

    Args:
        config: a run's resolved config.
        folder: of the run; the name of a cell says what is varied.

    >>> config = {"choices": {"data": "iris", "model": "mlp", "optimizer": "sgd"}}
    >>> describe_recipe(config, Path("outputs/a/optimizer.lr=0.1,seed=3-0123456789"))
    'iris-mlp-sgd optimizer.lr=0.1'
    """
    varied = []
    if find_study(folder):
        parts = CELL.sub("", folder.name).split(",")
        varied = [part for part in parts if not part.startswith("seed") and part != "run"]
    return " ".join([recipe_name(config), *varied])


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Return the values of a config by their dotted keys, lists and nulls as texts.

    >>> flatten_config({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "resume": None})
    {'optimizer.lr': 0.1, 'optimizer.betas': '[0.9, 0.99]', 'resume': 'null'}
    """
    flat: dict[str, str | float | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten_config(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            flat[f"{prefix}{key}"] = value
        else:
            flat[f"{prefix}{key}"] = "null" if value is None else str(value)
    return flat


def flatten_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a summary by name, standard errors as ``NAME/stderr``.

    Args:
        summary: measured numbers (``value``, ``stderr``, ``epoch``) by name.
    """
    values = {name: m.value for name, m in summary.items()}
    return values | {f"{n}/stderr": m.stderr for n, m in summary.items() if m.stderr is not None}


def best_epoch(summary: Mapping[str, Any]) -> int | None:
    """Return the epoch whose weights a summary is of.

    Args:
        summary: measured numbers by name.
    """
    return next((m.epoch for m in summary.values() if m.epoch is not None), None)
