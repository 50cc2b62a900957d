"""What was wrong with an override or a YAML file, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from truerisk.config.parts import PRIMARY, display_path, list_groups, list_options
from truerisk.core.errors import ConfigError, suggest

Where = Sequence[Path]

INSTEAD = {
    "gradient_clip_val": "use step.clip.norm or step.clip.value",
    "gradient_clip_algorithm": "use step.clip.norm or step.clip.value",
    "accumulate_grad_batches": "use step.accumulate",
    "logger": "choose loggers by name: logger=[csv,tensorboard]",
    "callbacks": "put them into a regularizer, which has a hook for callbacks",
    "enable_checkpointing": "the last and the best weights are always kept; see checkpoint_seconds",
    "default_root_dir": "use hydra.run.dir",
    "check_val_every_n_epoch": "use risk.every",
    "val_check_interval": "use risk.every",
    "num_sanity_val_steps": "risks are measured by truerisk; see risk.every",
    "limit_train_batches": "use data.num_train",
    "limit_val_batches": "use data.val",
    "limit_test_batches": "use data.test",
    "overfit_batches": "use data.num_train",
    "fast_dev_run": "use trainer=debug",
    "reload_dataloaders_every_n_epochs": "the data is loaded once",
    "use_distributed_sampler": "batches are shared out among the processes already",
    "inference_mode": "penalties may need gradients while measuring",
}
"""Trainer arguments that would do nothing, or harm, and what to use instead."""


def explain_error(error: Exception, overrides: Sequence[str], where: Where) -> ConfigError:
    """The message for an error Hydra raised while composing from the folders ``where``."""
    if isinstance(error, OverrideParseException):
        return ConfigError(_malformed(error))
    if isinstance(error, yaml.YAMLError):
        return ConfigError(_yaml(error))
    if isinstance(error, MissingConfigException):
        return ConfigError(_option(error, where))
    return ConfigError(_composition(error, overrides, where))


def explain_unresolved(error: OmegaConfBaseException) -> ConfigError:
    """The message for a value that is missing or refers to nothing."""
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"{error.full_key} has no value yet; set it: {error.full_key}=…")
    what = str(error).splitlines()[0]
    if isinstance(error, InterpolationResolutionError):
        return ConfigError(f"{error.full_key} refers to something that is not there: {what}")
    return ConfigError(f"{error.full_key}: {what}")


def _malformed(error: OverrideParseException) -> str:
    reason = error.message.splitlines()
    detail = reason[1] if reason[0].startswith("Error parsing") and len(reason) > 1 else reason[0]
    if "=" not in error.override and not error.override.startswith("~"):
        return f"'{error.override}' is no override; write key=value (see truerisk train --help)"
    key = error.override.partition("=")[0]
    return (
        f"cannot read the override '{error.override}' ({detail}); brackets come in pairs, and a "
        f"text with = , : {{ }} [ ] ( ) in it is quoted twice: \"{key}='…'\""
    )


def _yaml(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return f"a config file is no valid YAML: {error}"
    return f"{display_path(Path(mark.name))}, line {mark.line + 1}: {problem}"


def _option(error: MissingConfigException, where: Where) -> str:
    """An option that no folder has, or a group that none has."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    asker = re.match(r"In '(.+?)'", str(error))
    by = f"{asker[1]}.yaml: " if asker and asker[1] != PRIMARY else ""
    known = list_options(group, where)
    if not group:
        return f"{by}there is no config '{name}'; {suggest(name, list_options('', where))}"
    if group.startswith("hydra/"):
        found = ", ".join(error.options or ["see truerisk train --hydra-help"])
        return f"{group}={name}: there is no such option; known: {found}"
    if not known:
        return f"{by}there is no group '{group}'; {suggest(group, list_groups(where))}"
    folder = "conf" if any((d / group).is_dir() for d in where[:1]) else str(where[-1])
    return f"{by}{group}={name}: {folder}/{group} has no option '{name}'; {suggest(name, known)}"


def _composition(error: Exception, overrides: Sequence[str], where: Where) -> str:
    text = str(error)
    if "must be a string or a list" in text:
        return _not_an_option(overrides, where)
    if text.startswith("Ambiguous value"):
        return _needs_multirun(text)
    if found := re.search(r"Could not (?:override|delete from config\.) '([^'\s]+)'", text):
        by = re.match(r"In '(.+?)'", text)
        if by is not None:
            return _misplaced(by[1], text, where)
        return _unknown_key(found[1], overrides, where)
    if "requires --multirun" in text:
        swept = re.search(r"'(.+)'", text)
        return f"{swept[1] if swept else text}: add --multirun (-m), which runs every value"
    if found := re.match(r"Multiple values for (\S+)\.", text):
        return f"{found[1]} is already chosen; leave out the + to choose another: {found[1]}=…"
    if found := re.search(r"An item is already at '(\S+)'", text):
        return f"{found[1]} exists already; leave out the +: {found[1]}=…"
    said = [str(e).splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e)]
    return ": ".join(said) or "the configuration cannot be composed"


def _not_an_option(overrides: Sequence[str], where: Where) -> str:
    known = list_groups(where)
    empty = [o for o in overrides if o.partition("=")[2] in ("null", "") or "{" in o]
    wrong = next((o for o in empty if o.partition("=")[0] in known), "GROUP=null")
    group = wrong.partition("=")[0]
    return f"{wrong}: a group takes the name of an option or a list of names; {group}=[] for none"


def _needs_multirun(text: str) -> str:
    override = re.search(r"'(.+)'", text.splitlines()[0])
    shown_override = override[1] if override else "key=a,b"
    key, _, values = shown_override.partition("=")
    return (
        f"{shown_override}: several values need --multirun (-m), which runs each; "
        f"a list is written {key}=[{values}]"
    )


def _misplaced(config: str, text: str, where: Where) -> str:
    """An ``override`` in a YAML's defaults that found nothing to override."""
    file = next((f for d in where if (f := d / f"{config}.yaml").is_file()), None)
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    late = [i for i, line in enumerate(lines) if re.match(r"\s*#\s*@package", line)]
    if late and any(line.strip() for line in lines[: late[0]]):
        return f"{display_path(file) if file else config}: '# @package …' must be the first line"
    return f"{display_path(file) if file else config}: {text.partition(': ')[2].splitlines()[0]}"


def _load(file: Path | None) -> dict[str, Any]:
    """A YAML mapping with what its ``defaults`` put into it; empty if it is malformed."""
    own = _read(file)
    merged: dict[str, Any] = {}
    for entry in own.pop("defaults", None) or []:
        if isinstance(entry, str) and file is not None and entry != "_self_" and "@" not in entry:
            merged |= _load(file.with_name(f"{entry}.yaml"))
        for key, option in entry.items() if isinstance(entry, dict) else ():
            if file is not None and (place := re.fullmatch(r"/(\w+)@(\w+)", str(key))):
                merged[place[2]] = _load(file.parents[1] / place[1] / f"{option}.yaml")
    return _merge(merged, own)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {k for k in below if isinstance(below[k], dict) and isinstance(above.get(k), dict)}
    return below | above | {k: _merge(below[k], above[k]) for k in both}


def _read(file: Path | None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _has(node: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _chosen(group: str, overrides: Sequence[str], where: Where) -> list[str]:
    """The options of a group in use: the last override's, an experiment's or the default's."""
    values = [o.partition("=")[2] for o in overrides if o.partition("=")[0].lstrip("+") == group]
    if not values and group != "experiment":
        experiments = _chosen("experiment", overrides, where)
        files = [list_options("experiment", where).get(name) for name in experiments]
        values = [v for f in files if f is not None for v in _default(f, f"override /{group}")]
    values = values or _default(where[0] / f"{PRIMARY}.yaml", group)
    return [v for v in re.split(r"[\[\],\s]+", values[-1]) if v] if values else []


def _default(file: Path, name: str) -> list[str]:
    entries = _read(file).get("defaults") or []
    chosen = [e[name] for e in entries if isinstance(e, dict) and name in e]
    return [",".join(c) if isinstance(c, list) else str(c) for c in chosen]


def _unknown_key(key: str, overrides: Sequence[str], where: Where) -> str:
    head, *rest = key.split(".")
    if head.partition("/")[0] == "hydra":
        return _unknown_to_hydra(key, rest, overrides, where)
    known = list_groups(where)
    primary = {k: v for k, v in _load(where[0] / f"{PRIMARY}.yaml").items() if k != "hydra"}
    if head in known and rest:
        return _unknown_in_group(key, head, rest, _chosen(head, overrides, where), where)
    if head in primary:
        return f"{key}: {nearest_in(primary, [head, *rest])}; see conf/{PRIMARY}.yaml"
    if "@" in key:
        return f"{key}: groups are placed where they are; leave out the @"
    return f"there is no group or key '{head}'; {suggest(head, [*known, *primary])}"


def _unknown_to_hydra(key: str, rest: Sequence[str], overrides: Sequence[str], where: Where) -> str:
    """A key of a launcher or sweeper of ours, or any other of Hydra's."""
    group = f"hydra/{rest[0]}" if rest else ""
    files = list_options(group, where) if group in ("hydra/launcher", "hydra/sweeper") else {}
    used = [files[name] for name in _chosen(group, overrides, where) if name in files]
    if not used:
        return f"Hydra has no setting '{key}'; see truerisk train --cfg hydra"
    return f"{key}: {nearest_in(_load(used[0]), rest[1:])} ({display_path(used[0])})"


def nearest_in(node: Any, path: Sequence[str]) -> str:
    """Where in a nested mapping a path leaves it, and what is nearest there."""
    for i, part in enumerate(path):
        if not isinstance(node, dict):
            return f"{'.'.join(path[:i])} is a single value and has no '{part}'"
        if part not in node:
            return f"there is no '{part}'; {suggest(part, [k for k in node if k != '_target_'])}"
        node = node[part]
    return "it cannot be set"


def _unknown_in_group(
    key: str, group: str, rest: Sequence[str], chosen: Sequence[str], where: Where
) -> str:
    files = list_options(group, where)
    contents = {name: _load(file) for name, file in files.items()}
    nested = any(isinstance(keys.get(name), dict) for name, keys in contents.items())
    node = {k: v for name in chosen for k, v in contents.get(name, {}).items()}
    if node.get("_target_") == "???":
        return f"{key}: {group}={chosen[0]} has no keys of its own; add yours with a plus: +{key}=…"
    if nested and rest[0] in files and rest[0] not in chosen:
        wanted = ",".join([*chosen, rest[0]])
        return f"{key}: {rest[0]} is not among the chosen; add it: {group}=[{wanted}]"
    owners = [name for name, keys in contents.items() if _has(keys, rest) and name not in chosen]
    used = ", ".join(display_path(files[name]) for name in chosen if name in files)
    if group == "trainer" and rest[0] in INSTEAD:
        return f"{key} does not apply here: {INSTEAD[rest[0]]}"
    if deeper := _deeper(node, rest):
        return f"{key}: it is {group}.{'.'.join(deeper)} ({used})"
    if owners and not nested:
        return (
            f"{key}: '{'.'.join(rest)}' belongs to {_some(owners)}, not to {group}="
            f"{','.join(chosen)} ({used})"
        )
    hint = nearest_in(node, rest)
    added = f"; what the file leaves out is added with a plus: +{key}=…" if "known:" in hint else ""
    return f"{key}: {hint} ({used or f'no {group} is chosen'}){added}"


def _deeper(node: Any, path: Sequence[str]) -> list[str] | None:
    """The same path one level further in, if that exists."""
    inner = [k for k, v in node.items() if isinstance(v, dict) and _has(v, path)]
    return [inner[0], *path] if inner else None


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
