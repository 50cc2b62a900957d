"""Names and tags for a run, out of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED_GROUPS = ("data", "model", "optimizer")


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
