"""A composed configuration against what it configures, before anything is built."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig
from pydantic import (
    TypeAdapter,
    ValidationError,
)

from truerisk.config.compose import LISTS, resolve_config
from truerisk.config.mistakes import INSTEAD
from truerisk.config.options import Options
from truerisk.config.targets import find_mismatches, format_value, locate_target
from truerisk.core.errors import ConfigError, suggest

SINGLE = ("data", "model", "loss", "initializer", "optimizer", "scheduler", "trainer")
INJECTED = frozenset(
    {"input_shape", "output_size", "dtype", "task", "num_outputs", "seed", "generator"}
    | {"folder", "run_id", "config", "resume_step"}
)
"""Arguments that are filled in at run time where a signature has them."""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
OPTIONS = TypeAdapter(Options)


def check_config(cfg: DictConfig | Mapping[str, Any], injected: Collection[str] = INJECTED) -> None:
    """Look for everything that can be known to be wrong before data is loaded.

    Args:
        cfg: the configuration, as it was composed or in plain containers.
        injected: names of arguments that are filled in at run time.

    Raises:
        ConfigError: with one line for each mistake, which names the key.
    """
    plain = resolve_config(cfg) if isinstance(cfg, DictConfig) else cfg
    found = list(dict.fromkeys(find_problems(plain, injected)))
    if found:
        raise ConfigError("\n".join(found))


def find_problems(cfg: Mapping[str, Any], injected: Collection[str] = INJECTED) -> Iterator[str]:
    """One line for each mistake in a plain, resolved configuration."""
    yield from _options(cfg)
    yield from _clip(cfg.get("step"))
    for group in SINGLE:
        node = cfg.get(group)
        if not isinstance(node, Mapping) or "_target_" not in node:
            yield f"{group}: nothing is chosen; take an option by name (truerisk parts {group})"
            continue
        before = list(_trainer(node)) if group == "trainer" else []
        yield from before or _group(group, node, injected)
    for group in LISTS:
        for name, node in (cfg.get(group) or {}).items():
            yield from _listed(group, name, node, injected)


def _options(cfg: Mapping[str, Any]) -> Iterator[str]:
    known = {f.name: cfg[f.name] for f in fields(Options) if f.name in cfg}
    if isinstance(known.get("seed"), int):
        known["seed"] = {"base": known["seed"]}
    try:
        OPTIONS.validate_json(json.dumps(known), strict=True)
    except ValidationError as error:
        reasons: dict[str, list[str]] = {}
        for e in error.errors(include_url=False):
            key, value = _place(known, e["loc"])
            said = e["msg"].removeprefix("Input ")
            reasons.setdefault(f"{key} is {format_value(value)}", []).append(f"it {said}")
            if e["type"] == "unexpected_keyword_argument":
                reasons[f"{key} is {format_value(value)}"] = ["there is no such key"]
        yield from (f"{start}: {' or '.join(why)}" for start, why in reasons.items())


def _place(cfg: Any, loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """The config key that pydantic's location leads to, and what is there."""
    path: list[str] = []
    for part in loc:
        inside = part in cfg if isinstance(cfg, Mapping) else isinstance(cfg, list)
        if inside:
            cfg = cfg[part]
            path.append(str(part))
    return ".".join(path), cfg


def _clip(step: Any) -> Iterator[str]:
    clip = step.get("clip") if isinstance(step, Mapping) else None
    if isinstance(clip, Mapping) and None not in (clip.get("norm"), clip.get("value")):
        yield "step.clip: norm and value are both set; a gradient is clipped by one of them"


def _group(group: str, node: Mapping[str, Any], injected: Collection[str]) -> Iterator[str]:
    """One group's node, and those with a ``_target_`` inside it."""
    try:
        target = locate_target(node["_target_"], f"{group}._target_")
        if group == "scheduler":
            yield from _scheduler(node, target, injected)
        else:
            first = _first_parameter(target) if group == "optimizer" else ()
            yield from find_mismatches(node, group, {*injected, *first})
        yield from _inside(node, group, injected)
    except ConfigError as error:
        yield str(error)


def _scheduler(node: Mapping[str, Any], target: Any, injected: Collection[str]) -> Iterator[str]:
    """Its lengths may be shares of the run, and ``warmup`` is the schedule's own."""
    from truerisk.scheduler.schedule import LENGTHS

    lengths = (*LENGTHS, *getattr(target, "lengths", ()))
    given = {*injected, *_first_parameter(target)}
    yield from find_mismatches(node, "scheduler", given, skip=(*lengths, "warmup"))


def _first_parameter(target: Any) -> tuple[str, ...]:
    """The name of what is passed by position: parameter groups, or an optimizer."""
    return tuple(inspect.signature(target).parameters)[:1]


def _inside(node: Any, key: str, injected: Collection[str]) -> Iterator[str]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node)
    for name, value in items:
        if isinstance(value, Mapping) and "_target_" in value:
            yield from find_mismatches(value, f"{key}.{name}", injected)
        if isinstance(value, Mapping | list):
            yield from _inside(value, f"{key}.{name}", injected)


def _listed(group: str, name: str, node: Any, injected: Collection[str]) -> Iterator[str]:
    if not isinstance(node, Mapping) or "_target_" not in node:
        yield f"{group}.{name} has no _target_: its YAML must be nested under a name of its own"
        return
    try:
        yield from find_mismatches(node, f"{group}.{name}", injected)
        yield from _inside(node, f"{group}.{name}", injected)
    except ConfigError as error:
        yield str(error)


def _trainer(node: Mapping[str, Any]) -> Iterator[str]:
    """What Lightning would accept, and then ignore or get wrong."""
    for key, remedy in INSTEAD.items():
        if node.get(key) is not None:
            yield f"trainer.{key} does not apply here: {remedy}"
    if node.get("max_epochs") == -1 and node.get("max_steps", -1) == -1:
        yield "trainer: max_epochs and max_steps are both -1, so the run would not end; set one"
    yield from _precision(node)
    yield from _accelerator(node.get("accelerator", "auto"))


def _precision(node: Mapping[str, Any]) -> Iterator[str]:
    precision = node.get("precision", "32-true")
    on_cuda = node.get("accelerator") in ("cuda", "gpu") or (
        node.get("accelerator", "auto") == "auto" and _has("cuda")
    )
    if str(precision) in ("16", "16-true"):
        yield (
            "trainer.precision=16-true gives NaN: float16 holds too few digits for the weights; "
            "use 16-mixed on a GPU, or bf16-mixed"
        )
    elif precision not in PRECISIONS:
        hint = suggest(str(precision), PRECISIONS)
        yield f"trainer.precision is {format_value(precision)}; {hint}"
    elif precision == "16-mixed" and not on_cuda:
        yield (
            "trainer.precision=16-mixed needs a CUDA device (elsewhere Lightning would take "
            "bf16-mixed without saying so); use bf16-mixed or 32-true"
        )
    elif precision == "64-true" and node.get("accelerator") == "mps":
        yield "trainer.precision=64-true: MPS has no float64; use 32-true"


def _accelerator(name: Any) -> Iterator[str]:
    if name not in ACCELERATORS:
        yield f"trainer.accelerator is {format_value(name)}; {suggest(str(name), ACCELERATORS)}"
    elif name in ("cuda", "mps") and not _has(name):
        yield f"trainer.accelerator={name}: torch finds none on this machine; use trainer=cpu"
    elif name == "gpu" and not (_has("cuda") or _has("mps")):
        yield "trainer.accelerator=gpu: torch finds no GPU on this machine; use trainer=cpu"


def _has(device: str) -> bool:
    import torch

    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
