"""Which cells of a sweep can be trained as one stacked model, and why the others cannot."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from truerisk.config.targets import locate_target
from truerisk.engine.stacked.substitution import declared_numbers
from truerisk.engine.stacked.update_rules import UPDATE_RULES
from truerisk.regularizer.base import Regularizer
from truerisk.task import config_has_samples

FREE = frozenset(
    {"seed", "scheduler", "initializer", "stop", "choices", "logger"}
    | {"threads", "checkpoint_seconds", "resume", "study", "figures", "report", "hydra"}
)
"""Nodes that each member has its own of, whatever they hold."""

DATA_SHAPES = ("batch_size", "workers", "width", "heads")
"""Numbers of the data that members have in common; with the others, each makes its own data."""
TRAINER = frozenset(
    {"_target_", "accelerator", "devices", "precision", "max_epochs", "max_steps", "max_time"}
)
"""Options of the trainer that a group heeds."""
MATCHERS = ("min_ndim", "max_ndim")
"""Numbers of a rule for parameter groups that say whom it matches, rather than set something."""
KERNELS = ("fused", "foreach")
"""Options of an optimizer that choose among kernels of one update."""
LONELY = "no other cell has its structure"
"""Why a cell runs by itself that nothing else keeps from a group."""


class Unstackable(Exception):
    """Cells stack by their configurations, and do not by their data; says why."""


class CellGroup(NamedTuple):
    """Cells by their places in a list; ``why`` they run by themselves, where they do."""

    rows: list[int]
    why: str = ""


def group_configs(configs: Sequence[Mapping[str, Any]]) -> list[CellGroup]:
    """Group the cells that differ only in numbers that stack; every other one is its own group.

    Those numbers are all of ``seed``, the optimizer's numbers, what a regularizer and a loss
    declare in ``stacks``, clip thresholds, and numbers of the data that keep its shapes;
    initializer and scheduler may be other ones altogether.

    Args:
        configs: the cells' resolved configurations.

    Returns:
        The groups, by their first cell.
    """
    stacks: dict[str, list[int]] = {}
    alone: dict[int, str] = {}
    for row, config in enumerate(configs):
        if why := find_obstacle(config):
            alone[row] = why
        else:
            stacks.setdefault(common_structure(config), []).append(row)
    for rows in stacks.values():
        if len(rows) == 1:
            alone[rows[0]] = LONELY
    groups = [CellGroup([row], why) for row, why in alone.items()]
    groups += [CellGroup(rows) for rows in stacks.values() if len(rows) > 1]
    return sorted(groups, key=lambda group: group.rows[0])


def find_obstacle(config: Mapping[str, Any]) -> str:
    """Say what keeps a cell from any group; empty where nothing does."""
    trainer, data = config["trainer"], config["data"]
    unheeded = {k for k, v in trainer.items() if k not in TRAINER and v is not None}
    source = data.get("source") or {}
    obstacles = {
        "data=none has no samples to stack": not config_has_samples(data["_target_"]),
        "data.source.weight weighs the samples of one run": source.get("weight"),
        "risk.weighted=true weighs the samples of one run": config.get("risk", {}).get("weighted"),
        "data.in_memory=false: its samples are read one batch at a time": (
            data.get("in_memory") is False
        ),
        f"diagnostics={','.join(config['diagnostics'])} look at one model": config["diagnostics"],
        "compile=true compiles one model": config.get("compile"),
        "recompute=true saves the memory of one model": config.get("recompute"),
        f"trainer.devices={trainer.get('devices')}": trainer.get("devices") not in (1, "auto"),
        "trainer.precision=16-mixed scales each loss": trainer.get("precision") == "16-mixed",
        "trainer.max_time follows the clock": trainer.get("max_time"),
        f"trainer.{', trainer.'.join(sorted(unheeded))}": unheeded,
    }
    for key, node in config["regularizer"].items():
        target = _locate(node, f"regularizer.{key}")
        reason = getattr(target, "unstackable", "")
        if getattr(target, "callbacks", Regularizer.callbacks) is not Regularizer.callbacks:
            reason = "brings Lightning callbacks, which look at one model"
        obstacles[f"regularizer={key} {reason}"] = reason
    return next((why for why, holds in obstacles.items() if holds), "") or _find_no_update(config)


def _find_no_update(config: Mapping[str, Any]) -> str:
    """Say what of the optimizer has no update on stacked weights; empty where all has."""
    optimizer = config["optimizer"]
    rule = UPDATE_RULES.get(optimizer["_target_"])
    if rule is None:
        return f"{optimizer['_target_']} has no update on stacked weights"
    known = (*rule.stacks, *rule.initial, *rule.switches, *KERNELS, "_target_", "_partial_")
    unknown = [key for key, value in optimizer.items() if key not in known and value]
    return f"optimizer.{unknown[0]} has no update on stacked weights" if unknown else ""


def common_structure(config: Mapping[str, Any]) -> str:
    """Return what members of a group have in common: the configuration less what may differ.

    Args:
        config: of a cell without an obstacle.
    """
    common = {key: node for key, node in config.items() if key not in FREE}
    rule = UPDATE_RULES[config["optimizer"]["_target_"]]
    free = {*rule.stacks, *rule.initial, *KERNELS}
    common["optimizer"] = {k: v for k, v in config["optimizer"].items() if k not in free}
    common["loss"] = _drop_declared(config["loss"], "loss")
    thresholds = [key for key, value in config["step"]["clip"].items() if value is not None]
    common["step"] = {**config["step"], "clip": thresholds}
    # a list, as their order is the order in which batches are edited
    common["regularizer"] = [
        [key, _drop_declared(node, f"regularizer.{key}")]
        for key, node in config["regularizer"].items()
    ]
    rules = config["param_groups"]["rules"]
    common["param_groups"] = [_drop_numbers(rule, MATCHERS) for rule in rules]
    common["data"] = _drop_numbers(config["data"], DATA_SHAPES)
    return json.dumps(common, sort_keys=True, default=str)


def _drop_declared(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a part's node without the numbers that its class declares in ``stacks``."""
    declared = declared_numbers(_locate(node, key))
    return {k: v for k, v in node.items() if k not in declared or not _is_number(v)}


def _locate(node: Mapping[str, Any], key: str) -> Any:
    return locate_target(node["_target_"], f"{key}._target_")


def _drop_numbers(node: Any, keep: Collection[str]) -> Any:
    """Return a node without its numbers at any depth, but for those named ``keep``."""
    if isinstance(node, Mapping):
        kept = {k: v for k, v in node.items() if k in keep or not _is_number(v)}
        return {k: _drop_numbers(v, keep) for k, v in kept.items()}
    if isinstance(node, list | tuple):
        return [_drop_numbers(value, keep) for value in node]
    return node


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
