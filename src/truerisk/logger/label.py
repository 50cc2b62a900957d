"""Names and tags for a run, out of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED = ("data", "model", "optimizer")


def choice(config: Mapping[str, Any], group: str) -> str | None:
    """What a group was set to: its option's name where the config says it, else its target's.

    >>> choice({"model": {"_target_": "truerisk.model.MLP", "width": 100}}, "model")
    'mlp'
    >>> choice({"choices": {"model": "mlp_small"}, "model": {}}, "model")
    'mlp_small'
    """
    named = (config.get("choices") or {}).get(group)
    if named:
        return str(named)
    node = config.get(group)
    node = node if isinstance(node, Mapping) else {}
    # data sets differ in their source, under one and the same module
    target = (node.get("source") or node).get("_target_")
    return None if target is None else str(target).rpartition(".")[2].lower()


def recipe_name(config: Mapping[str, Any]) -> str:
    """A recipe in three words: data, model and optimizer.

    >>> recipe_name({"choices": {"data": "mnist1d", "model": "mlp", "optimizer": "adam"}})
    'mnist1d-mlp-adam'
    """
    return "-".join(filter(None, (choice(config, group) for group in NAMED))) or "run"


def recipe_tags(config: Mapping[str, Any]) -> list[str]:
    """The recipe's parts one by one: data, model, optimizer and every regularizer.

    >>> recipe_tags({"choices": {"data": "iris", "model": "linear"}, "regularizer": {"l2": {}}})
    ['iris', 'linear', 'l2']
    """
    parts = [choice(config, group) for group in NAMED]
    return list(dict.fromkeys([*filter(None, parts), *(config.get("regularizer") or {})]))
