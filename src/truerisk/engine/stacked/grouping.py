"""Which cells of a sweep can be trained as one stacked model, and why the others cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from truerisk.engine.stacked.update_rules import OTHERS, UPDATE_RULES
from truerisk.task import config_has_samples

FREE = frozenset(
    {"seed", "scheduler", "initializer", "stop", "choices", "logger"}
    | {"threads", "checkpoint_seconds", "resume", "study", "figures", "report", "hydra"}
)
"""Nodes that each member has its own of, whatever they hold."""

LOSS = ("label_smoothing", "margin")
SHAPING = ("batch_size", "workers", "width", "heads")
TRAINER = frozenset(
    {"_target_", "accelerator", "devices", "precision", "max_epochs", "max_steps", "max_time"}
)
RULE = ("min_ndim", "max_ndim")


class Group(NamedTuple):
    """Cells by their places in a list; ``why`` they run by themselves, where they do."""

    rows: list[int]
    why: str = ""


def groups(configs: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Cells that differ only in numbers that stack make a group; every other one is its own.

    Those numbers are all of ``seed``, the optimizer's numbers, every λ and other number of a
    regularizer, label smoothing and margin, clip thresholds, numbers of the data that keep its
    shapes; initializer and scheduler may be other ones altogether.
    """
    stacks: dict[str, list[int]] = {}
    alone: dict[int, str] = {}
    for row, config in enumerate(configs):
        if why := obstacle(config):
            alone[row] = why
        else:
            stacks.setdefault(structure(config), []).append(row)
    for rows in stacks.values():
        if len(rows) == 1:
            alone[rows[0]] = "no other cell has its structure"
    made = [Group([row], why) for row, why in alone.items()]
    made += [Group(rows) for rows in stacks.values() if len(rows) > 1]
    return sorted(made, key=lambda group: group.rows[0])


def obstacle(config: Mapping[str, Any]) -> str:
    """What keeps a cell from any group; empty where nothing does."""
    trainer, data = config["trainer"], config["data"]
    regularizers = [str(node["_target_"]) for node in config["regularizer"].values()]
    more = {k for k, v in trainer.items() if k not in TRAINER and v is not None}
    hindered = {
        "data=none has no samples to stack": not config_has_samples(data["_target_"]),
        "data.in_memory=false: its samples are read one batch at a time": (
            data.get("in_memory") is False
        ),
        f"diagnostics={','.join(config['diagnostics'])} look at one model": config["diagnostics"],
        "compile=true compiles one model": config.get("compile"),
        f"trainer.devices={trainer.get('devices')}": trainer.get("devices") not in (1, "auto"),
        "trainer.precision=16-mixed scales each loss": trainer.get("precision") == "16-mixed",
        "trainer.max_time follows the clock": trainer.get("max_time"),
        f"trainer.{', trainer.'.join(sorted(more))}": more,
        "regularizer=spectral_norm changes its buffers in place": any(
            target.endswith(".SpectralNorm") for target in regularizers
        ),
    }
    return next((why for why, here in hindered.items() if here), "") or _update(config)


def _update(config: Mapping[str, Any]) -> str:
    optimizer = config["optimizer"]
    rule = UPDATE_RULES.get(optimizer["_target_"])
    if rule is None:
        return f"{optimizer['_target_']} has no update on stacked weights"
    known = (*rule.numbers, *rule.switches, *OTHERS)
    strange = [key for key, value in optimizer.items() if key not in known and value]
    return f"optimizer.{strange[0]} has no update on stacked weights" if strange else ""


def structure(config: Mapping[str, Any]) -> str:
    """What members of one group have in common: the configuration without what may differ."""
    kept = {key: node for key, node in config.items() if key not in FREE}
    numbers = UPDATE_RULES[config["optimizer"]["_target_"]].numbers
    optimizer = {k: v for k, v in config["optimizer"].items() if k not in (*numbers, *OTHERS[2:])}
    optimizer["_target_"] = config["optimizer"]["_target_"]
    kept["optimizer"] = optimizer
    kept["loss"] = {k: v for k, v in config["loss"].items() if k not in LOSS}
    kept["step"] = {**config["step"], "clip": _set(config["step"]["clip"])}
    kept["regularizer"] = [[k, _structural(n)] for k, n in config["regularizer"].items()]
    kept["param_groups"] = [_without(rule, RULE) for rule in config["param_groups"]["rules"]]
    kept["data"] = _without(config["data"], SHAPING)
    return json.dumps(kept, sort_keys=True, default=str)


def _set(clip: Mapping[str, Any]) -> list[str]:
    return [key for key, value in clip.items() if value is not None]


def _structural(node: Mapping[str, Any]) -> Any:
    """A regularizer without its numbers, if it is one whose numbers are known to stack."""
    if not str(node["_target_"]).startswith("truerisk."):
        return node
    rules = node.get("rules")
    return {**{k: v for k, v in node.items() if not _is_number(v)}, "rules": rules}


def _without(node: Any, keep: Sequence[str]) -> Any:
    """A node without its numbers, but for those that shape what it makes."""
    if isinstance(node, Mapping):
        return {k: _without(v, keep) for k, v in node.items() if k in keep or not _is_number(v)}
    return [_without(value, keep) for value in node] if isinstance(node, list) else node


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
