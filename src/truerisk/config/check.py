"""A composed configuration against what it configures, before anything is built."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig
from pydantic import TypeAdapter, ValidationError

from truerisk.config.compose import LISTS, resolve_config
from truerisk.config.mistakes import INSTEAD
from truerisk.config.options import Options, TrainerOptions
from truerisk.config.parts import SINGLE
from truerisk.config.targets import (
    FILLED_IN,
    find_mismatches,
    find_swallowed,
    format_value,
    locate_target,
)
from truerisk.core.checks import check_float, find_empty, parse_duration
from truerisk.core.errors import ConfigError, suggest

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
OPTIONS = TypeAdapter(Options)
PLACES = ("resume", "path", "cache", "tracking_uri", "project", "entity", "experiment")
"""Keys that name a file, a folder or a place elsewhere, of whichever option."""
LOSS_RANGES: dict[str, dict[str, tuple[float, float, bool]]] = {
    "torch.nn.CrossEntropyLoss": {"label_smoothing": (0.0, 1.0, False)},
    "torch.nn.HuberLoss": {"delta": (0.0, math.inf, True)},
    "torch.nn.SmoothL1Loss": {"beta": (0.0, math.inf, False)},
}
"""Least and largest of torch's numbers, and whether the least itself is excluded."""
NESTED = {"data": "source", "optimizer": "base"}
"""Groups of which some options have a part of a part, and its key."""
CALLED = {"loss": "outputs, y", "model": "x"}
"""Groups whose parts are called with each batch, and with what."""


def check_config(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Look for everything that can be known to be wrong before data is loaded.

    Args:
        cfg: the configuration, as it was composed or in plain containers.

    Raises:
        ConfigError: with one line for each mistake, which names the key.
    """
    plain = resolve_config(cfg) if isinstance(cfg, DictConfig) else cfg
    mistakes = list(dict.fromkeys(find_problems(plain)))
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def find_problems(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Describe each mistake in a plain, resolved configuration in a line."""
    for key in find_empty(cfg, ""):
        if key.rpartition(".")[2] in PLACES:
            yield f"{key} is empty: give it a name, or leave it out"
    yield from _check_options(cfg)
    yield from _check_clipping(cfg.get("step"))
    yield from _check_loss(cfg.get("loss"))
    for group in SINGLE:
        node = cfg.get(group)
        if not isinstance(node, Mapping) or "_target_" not in node:
            yield f"{group}: nothing is chosen; take an option by name (truerisk parts {group})"
            continue
        misused: list[str] = []
        if group == "trainer":
            misused = list(_check_trainer(node))
        # Lightning's signature has the misused arguments, so it would find nothing wrong
        yield from misused or list(_check_target(group, node, group)) or _check_nested(group, node)
    for group in LISTS:
        for name, node in (cfg.get(group) or {}).items():
            key = f"{group}.{name}"
            if isinstance(node, Mapping) and "_target_" in node:
                yield from _check_target(group, node, key)
            else:
                yield f"{key} has no _target_: its YAML must be nested under a name of its own"


def _check_options(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Check what is no argument of a ``_target_``: types and ranges."""
    options = {f.name: cfg[f.name] for f in fields(Options) if f.name in cfg}
    if isinstance(options.get("seed"), int):
        options["seed"] = {"base": options["seed"]}
    try:
        # as JSON: in strict mode pydantic takes no list for a tuple, but JSON has no tuples
        OPTIONS.validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        # a value of several types gives an error for each: they share a line
        reasons: dict[str, list[str]] = {}
        for e in error.errors(include_url=False):
            key, value = _locate_error(options, e["loc"])
            subject = f"{key} is {format_value(value)}"
            if e["type"] == "unexpected_keyword_argument":
                reasons[subject] = ["there is no such key"]
            else:
                reasons.setdefault(subject, []).append(f"it {e['msg'].removeprefix('Input ')}")
        yield from (f"{subject}: {' or '.join(why)}" for subject, why in reasons.items())


def _locate_error(cfg: Any, loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """Find the config key that pydantic's location leads to, and what is there."""
    path: list[str] = []
    for part in loc:
        # pydantic's location also names the types it tried, which are no keys
        if isinstance(cfg, Mapping) and part not in cfg:
            continue
        if isinstance(cfg, Mapping | list):
            cfg = cfg[part]  # type: ignore[index]
            path.append(str(part))
    return ".".join(path), cfg


def _check_loss(node: Any) -> Iterator[str]:
    """Check the numbers of torch's losses, which takes some of them only to fail at a batch."""
    if not isinstance(node, Mapping):
        return
    for name, (low, high, above) in LOSS_RANGES.get(str(node.get("_target_")), {}).items():
        value = node.get(name, high)
        if isinstance(value, int | float):  # of another type: its signature tells
            try:
                check_float(f"loss.{name}", value, low, high, above=above)
            except ConfigError as error:
                yield str(error)


def _check_clipping(step: Any) -> Iterator[str]:
    clip = step.get("clip") if isinstance(step, Mapping) else None
    if isinstance(clip, Mapping) and None not in (clip.get("norm"), clip.get("value")):
        yield "step.clip: norm and value are both set; a gradient is clipped by one of them"


def _check_target(group: str, node: Mapping[str, Any], key: str) -> Iterator[str]:
    """Check a node, and those with a ``_target_`` inside it, against their signatures."""
    filled_in = FILLED_IN.get(group, frozenset())
    try:
        if group == "scheduler":
            yield from _check_scheduler(node)
        elif group == "optimizer":
            target = locate_target(node["_target_"], f"{key}._target_")
            yield from find_mismatches(node, key, {*filled_in, *_first_parameter(target)})
            yield from find_swallowed(node, key, target)
        elif group == "trainer":
            yield from find_mismatches(node, key, filled_in, target=_serving_trainer(node))
        else:
            skip = ("output",) if group == "model" else ()  # which of several outputs is meant
            wrong = list(_check_class(group, node, filled_in))
            yield from wrong or find_mismatches(node, key, filled_in, skip=skip)
        yield from _check_inside(node, key)
    except ConfigError as error:
        yield str(error)


def _check_nested(group: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Find what is no part where an option has a part of its own."""
    key = NESTED.get(group, "")
    part = node.get(key, {"_target_": ""})
    if not isinstance(part, Mapping) or "_target_" not in part:
        yield (
            f"{group}.{key} is {format_value(part)}: it is a part of its own, with a _target_; "
            f"{group}=NAME chooses an option that has one (truerisk parts {group})"
        )


def _check_class(group: str, node: Mapping[str, Any], filled_in: Collection[str]) -> Iterator[str]:
    """Find a function in the place of a class: what is to be called with each batch itself."""
    if group not in CALLED:
        return
    target = locate_target(node["_target_"], f"{group}._target_")
    if not inspect.isfunction(target):
        return
    needed = [n for n, p in inspect.signature(target).parameters.items() if p.default is p.empty]
    if node.get("_partial_") or any(n not in node and n not in filled_in for n in needed):
        yield (
            f"{group}: {node['_target_']} is a function of ({', '.join(needed)}), and a {group} is "
            f"a class: write a torch.nn.Module with forward(self, {CALLED[group]}) that calls it "
            "(docs/your_own.md)"
        )


def _serving_trainer(node: Mapping[str, Any]) -> type | None:
    """Return what stands for Lightning's Trainer where our own loop serves all that is asked."""
    served = {"_target_", *(f.name for f in fields(TrainerOptions))}
    ours = node["_target_"] == "lightning.Trainer" and node.keys() <= served
    if ours:
        return TrainerOptions
    return None


def _check_scheduler(node: Mapping[str, Any]) -> Iterator[str]:
    """Check a scheduler: its lengths may be shares of the run, ``warmup`` is the schedule's own."""
    from truerisk.scheduler.schedule import LENGTHS

    # lengths may be shares of the run, which the library's own types do not admit
    target = locate_target(node["_target_"], "scheduler._target_")
    skip = (*LENGTHS, *getattr(target, "lengths", ()), "warmup")
    yield from find_mismatches(node, "scheduler", _first_parameter(target), skip=skip)


def _first_parameter(target: Any) -> Collection[str]:
    """Name what is passed by position: parameter groups, or an optimizer."""
    return tuple(inspect.signature(target).parameters)[:1]


def _check_inside(node: Any, key: str) -> Iterator[str]:
    """Check every node with a ``_target_`` below a node; Hydra fills nothing in there."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node)
    for name, value in items:
        if isinstance(value, Mapping) and "_target_" in value:
            yield from find_mismatches(value, f"{key}.{name}")
        if isinstance(value, Mapping | list):
            yield from _check_inside(value, f"{key}.{name}")


def _check_trainer(node: Mapping[str, Any]) -> Iterator[str]:
    """Find what Lightning would accept, and then ignore or get wrong."""
    for key, remedy in INSTEAD.items():
        if node.get(key) is not None:
            yield f"trainer.{key} does not apply here: {remedy}"
    if node.get("max_epochs") == -1 and node.get("max_steps", -1) == -1:
        yield "trainer: max_epochs and max_steps are both -1, so the run would not end; set one"
    for key in ("max_epochs", "max_steps"):
        value = node.get(key)
        if isinstance(value, int) and value < -1:
            yield f"trainer.{key} is {value}: it must be at least 0, or -1 for no limit"
    if (devices := node.get("devices")) in (0, "0") or (type(devices) is int and devices < -1):
        yield f"trainer.devices is {devices}: give the number of processes, at least 1, or auto"
    yield from _check_duration(node.get("max_time"))
    yield from _check_precision(node)
    yield from _check_accelerator(node.get("accelerator", "auto"))


def _check_duration(value: Any) -> Iterator[str]:
    try:
        parse_duration("trainer.max_time", value)
    except ConfigError as error:
        yield str(error)


def _check_precision(node: Mapping[str, Any]) -> Iterator[str]:
    precision, accelerator = node.get("precision", "32-true"), node.get("accelerator", "auto")
    if str(precision) in ("16", "16-true"):
        yield (
            "trainer.precision=16-true gives NaN: float16 holds too few digits for the weights; "
            "use 16-mixed on a GPU, or bf16-mixed"
        )
    elif precision not in PRECISIONS:
        hint = suggest(str(precision), PRECISIONS)
        yield f"trainer.precision is {format_value(precision)}; {hint}"
    elif precision == "16-mixed":
        on_cuda = accelerator in ("cuda", "gpu")
        if not on_cuda and not (accelerator == "auto" and _has_device("cuda")):
            yield (
                "trainer.precision=16-mixed needs a CUDA device (elsewhere Lightning would take "
                "bf16-mixed without saying so); use bf16-mixed or 32-true"
            )
    elif precision == "64-true" and accelerator == "mps":
        yield "trainer.precision=64-true: MPS has no float64; use 32-true"


def _check_accelerator(name: Any) -> Iterator[str]:
    if name not in ACCELERATORS:
        yield f"trainer.accelerator is {format_value(name)}; {suggest(str(name), ACCELERATORS)}"
    elif name in ("cuda", "mps") and not _has_device(name):
        yield f"trainer.accelerator={name}: torch finds none on this machine; use trainer=cpu"
    elif name == "gpu" and not (_has_device("cuda") or _has_device("mps")):
        yield "trainer.accelerator=gpu: torch finds no GPU on this machine; use trainer=cpu"


def _has_device(name: str) -> bool:
    import torch

    if name == "cuda":
        return torch.cuda.is_available()
    return torch.backends.mps.is_available()
