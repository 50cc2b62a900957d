"""What was wrong with an override or a YAML file, and what to write instead.

Hydra's errors are diagnosed from what is known for certain: the parsed overrides, the options there
are, and the configuration that the chosen ones make. Its English is read in two places, marked so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from truerisk.config.parts import PRIMARY, SINGLE, display_path, list_groups, list_options
from truerisk.core.errors import ConfigError, first_line, suggest

Where = Sequence[Path]
"""The folders that hold options: the package's own, then the user's."""

CLOSES = {"[": "]", "(": ")", "{": "}"}
INSTEAD = {
    "gradient_clip_val": "use step.clip.norm or step.clip.value",
    "gradient_clip_algorithm": "use step.clip.norm or step.clip.value",
    "accumulate_grad_batches": "use step.accumulate",
    "logger": "choose loggers by name: logger=[csv,tensorboard]",
    "callbacks": "name them under diagnostics, or give truerisk.train(…, callbacks=[…])",
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
    "limit_predict_batches": "training predicts nothing",
    "plugins": "use trainer.accelerator, trainer.strategy and trainer.precision",
    "barebones": "without callbacks our own loop runs, which is bare",
    "inference_mode": "penalties may need gradients while measuring",
}
"""Trainer arguments that would do nothing, or harm, and what to use instead."""


class Composition(NamedTuple):
    """What the chosen options make, before overrides of values are applied.

    Attributes:
        config: plain containers, unresolved, Hydra's own node included.
        chosen: the names of the options, by group; nested groups as ``outer/inner``.
    """

    config: dict[str, Any]
    chosen: Mapping[str, Sequence[str]]


def explain_error(
    error: Exception,
    where: Where,
    overrides: Sequence[Override] = (),
    composition: Composition | None = None,
    multirun: bool = False,
) -> ConfigError:
    """Explain an error that Hydra raised while it composed.

    Args:
        error: Hydra's, or that of a YAML file.
        where: the folders that hold options.
        overrides: those it composed with.
        composition: what the chosen options make; None where it failed before that.
        multirun: whether several values were allowed.

    Returns:
        An error with one line, which names the key and what to write.
    """
    if isinstance(error, OverrideParseException):
        return ConfigError(_explain_malformed(error))
    if isinstance(error, yaml.YAMLError):
        return ConfigError(_explain_yaml(error))
    if isinstance(error, MissingConfigException):
        return ConfigError(_explain_missing_option(error, where))
    if composition is not None:
        message = _diagnose_values(overrides, composition, where)
    else:
        message = _diagnose_choices(error, overrides, where, multirun)
    if message is None:
        texts = [str(e).splitlines()[0] for e in (error, error.__cause__) if e and str(e)]
        message = ": ".join(texts) or "the configuration cannot be composed"
    return ConfigError(message)


def explain_unresolved(error: OmegaConfBaseException) -> ConfigError:
    """Explain that a value is missing or refers to nothing."""
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"{error.full_key} has no value yet; set it: {error.full_key}=…")
    what = first_line(error)
    if isinstance(error, InterpolationResolutionError):
        return ConfigError(f"{error.full_key} refers to something that is not there: {what}")
    return ConfigError(f"{error.full_key}: {what}")


def _explain_malformed(error: OverrideParseException) -> str:
    if "=" not in error.override and not error.override.startswith("~"):
        return f"'{error.override}' is no override; write key=value (see truerisk train --help)"
    # `seed=1,` was made longer for Hydra
    typed = re.sub(r"^([+~]*)seed\.base=", r"\1seed=", error.override)
    key, _, value = typed.partition("=")
    fault = _find_malformed(key, value)
    if call := re.search(r"while evaluating '(.*?)': (.*)", error.message):
        fault = f"{call[1]}: {call[2]}"
    return f"cannot read the override '{typed}': {fault}"


def _find_malformed(key: str, value: str) -> str:
    """Say what of an override Hydra's grammar cannot read."""
    if not re.fullmatch(r"[+~]*[\w./@:$-]+", key):
        return f"'{key}' is no key: letters, digits, _ and . make one"
    bare = re.sub(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", "x", value)
    if quote := re.search(r"['\"]", bare):
        return f"the quote {quote[0]} is not closed"
    opened: list[str] = []
    for sign in re.findall(r"[][(){}]", bare):
        if sign in CLOSES:
            opened.append(sign)
        elif not opened or CLOSES[opened.pop()] != sign:
            return f"there is no bracket before that this {sign} closes"
    if opened:
        return f"the bracket {opened[-1]} is not closed"
    if re.search(r"(^|[,([{])\s*,|,\s*($|[])}])", bare):
        return "a value is missing beside a comma"
    return f"a text with = , : {{ }} [ ] ( ) in it is quoted twice: \"{key}='…'\""


def _explain_yaml(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return f"a config file is no valid YAML: {error}"
    return f"{display_path(Path(mark.name))}, line {mark.line + 1}: {problem}"


def _explain_missing_option(error: MissingConfigException, where: Where) -> str:
    """Explain an option that no folder has, or a group that none has."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    config = _find_asking_config(error)
    asker = ""
    if config not in ("", PRIMARY):
        asker = f"{config}.yaml: "
    options = list_options(group, where)
    if not group:
        hint = suggest(name, list_options("", where))
        return f"{asker}there is no config '{name}'; {hint}"
    if group.startswith("hydra/"):
        known = ", ".join(error.options or ["see truerisk train --hydra-help"])
        return f"{group}={name}: there is no such option; known: {known}"
    if not options:
        return f"{asker}there is no group '{group}'; {suggest(group, list_groups(where))}"
    folder = str(where[-1])
    if (where[0] / group).is_dir():
        folder = "conf"
    hint = suggest(name, options)
    return f"{asker}{group}={name}: {folder}/{group} has no option '{name}'; {hint}"


def _find_asking_config(error: Exception) -> str:
    """Find the config whose defaults list Hydra speaks of; empty for the command line."""
    # the one thing about a defaults list that stands in the text alone
    match = re.match(r"In '(.+?)'", str(error))
    return match[1] if match else ""


def _diagnose_choices(
    error: Exception, overrides: Sequence[Override], where: Where, multirun: bool
) -> str | None:
    """Say which choice of an option went wrong; None where that cannot be told."""
    if config := _find_asking_config(error):
        return _explain_misplaced(config, str(error), where)
    for override in overrides:
        key, text = override.key_or_group, override.input_line
        if override.is_sweep_override():
            if multirun:
                continue
            if override.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
                return f"{text}: add --multirun (-m), which runs every value"
            values = str(text).partition("=")[2]
            return (
                f"{text}: several values need --multirun (-m), which runs each; "
                f"a list is written {key}=[{values}]"
            )
        if not any((folder / key).is_dir() for folder in where) or override.is_delete():
            continue
        if key in SINGLE and not isinstance(override.value(), str | list | dict):
            return f"{text}: the group takes the name of an option (truerisk parts {key})"
        if not isinstance(override.value(), str | list | dict):
            return (
                f"{text}: a group takes the name of an option or a list of names; {key}=[] for none"
            )
    for override in overrides:
        key = override.key_or_group
        if override.package is not None:
            return (
                f"{override.get_key_element()}: groups are placed where they are; leave out the @"
            )
        if key in list_groups(where):
            if override.is_add():
                return f"{key} is already chosen; leave out the + to choose another: {key}=…"
            if key not in read_default_groups(where) and not override.is_delete():
                return f"{key}: no option of it is chosen yet; choose one with a plus: +{key}=…"
    return None


def _explain_misplaced(config: str, text: str, where: Where) -> str:
    """Explain an ``override`` in a YAML's defaults that found nothing to override."""
    file = next((f for d in where if (f := d / f"{config}.yaml").is_file()), None)
    if file is None:
        return f"{config}: {text.partition(': ')[2].splitlines()[0]}"
    name, lines = display_path(file), file.read_text(encoding="utf-8").splitlines()
    # Hydra reads the package from comments before anything else, and ignores a later one
    late = [i for i, line in enumerate(lines) if re.match(r"\s*#\s*@package", line)]
    if late and any(line.strip() for line in lines[: late[0]]):
        return f"{name}: '# @package …' must be the first line"
    return f"{name}: {text.partition(': ')[2].splitlines()[0]}"


def _diagnose_values(
    overrides: Sequence[Override], composition: Composition, where: Where
) -> str | None:
    """Say which override of a value found nothing to set, or something that it was to add."""
    for override, node in _apply_in_turn(overrides, composition, where):
        key, path = override.key_or_group, override.key_or_group.split(".")
        found = _has_path(node, path)
        if override.is_add():
            if found and not isinstance(override.value(), dict | list):
                return f"{key} exists already; leave out the +: {key}=…"
        elif not found and not override.is_force_add():
            return _explain_unknown_key(key, composition, where)
    return None


def _apply_in_turn(
    overrides: Sequence[Override], composition: Composition, where: Where
) -> Iterator[tuple[Override, dict[str, Any]]]:
    """Yield each override of a value, with the configuration that it finds."""
    config = _merge({}, composition.config)
    for override in overrides:
        key, value = override.key_or_group, override.value()
        chooses = any((folder / key).is_dir() for folder in where) and not isinstance(value, dict)
        if override.is_sweep_override() or override.package is not None or chooses:
            continue
        yield override, config
        *outer, last = key.split(".")
        node = config
        for part in outer:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        # as Hydra would have it, so that the next override is judged by what it finds
        if override.is_delete():
            node.pop(last, None)
        else:
            node[last] = value


def _explain_unknown_key(key: str, composition: Composition, where: Where) -> str:
    head, *rest = key.split(".")
    if head.partition("/")[0] == "hydra":
        return _explain_unknown_to_hydra(key, rest, composition, where)
    groups = list_groups(where)
    config = {k: v for k, v in composition.config.items() if k != "hydra"}
    if head in groups and rest:
        return _explain_unknown_in_group(key, head, rest, composition, where)
    if head in config and head not in groups:
        return f"{key}: {nearest_in(config, [head, *rest])}; see conf/{PRIMARY}.yaml"
    return f"there is no group or key '{head}'; {suggest(head, {*groups, *config})}"


def _explain_unknown_to_hydra(
    key: str, rest: Sequence[str], composition: Composition, where: Where
) -> str:
    """Explain a key of a launcher or sweeper of ours, or any other of Hydra's."""
    used = []
    if rest and rest[0] in ("launcher", "sweeper"):
        group = f"hydra/{rest[0]}"
        files = list_options(group, where)
        used = [files[name] for name in composition.chosen.get(group, ()) if name in files]
    if not used:
        return f"Hydra has no setting '{key}'; see truerisk train --cfg hydra"
    hint = nearest_in(composition.config["hydra"], rest)
    return f"{key}: {hint} ({display_path(used[0])})"


def _explain_unknown_in_group(
    key: str, group: str, rest: Sequence[str], composition: Composition, where: Where
) -> str:
    """Explain a key that the chosen options of a group have not: another has it, or none."""
    files, chosen = list_options(group, where), list(composition.chosen.get(group, ()))
    contents = {name: _load_option(file) for name, file in files.items()}
    node = composition.config.get(group) or {}
    if node.get("_target_") == "???":
        return f"{key}: {group}={chosen[0]} has no keys of its own; add yours with a plus: +{key}=…"
    # the options of a list group stand below names of their own
    is_list = any(isinstance(keys.get(name), dict) for name, keys in contents.items())
    if is_list and rest[0] in files and rest[0] not in chosen:
        wanted = ",".join([*chosen, rest[0]])
        return f"{key}: {rest[0]} is not among the chosen; add it: {group}=[{wanted}]"
    if group == "trainer" and rest[0] in INSTEAD:
        return f"{key} does not apply here: {INSTEAD[rest[0]]}"
    used = ", ".join(display_path(files[name]) for name in chosen if name in files)
    inner = [k for k, v in node.items() if isinstance(v, dict) and _has_path(v, rest)]
    if inner:
        return f"{key}: it is {'.'.join([group, inner[0], *rest])} ({used})"
    owners = [n for n, keys in contents.items() if _has_path(keys, rest) and n not in chosen]
    if owners and not is_list:
        if len(owners) > 6:
            owners = [*owners[:6], "…"]
        others = ", ".join(owners)
        return (
            f"{key}: '{'.'.join(rest)}' belongs to {others}, not to {group}="
            f"{','.join(chosen)} ({used})"
        )
    hint = nearest_in(node, rest)
    message = f"{key}: {hint} ({used or f'no {group} is chosen'})"
    if "known:" in hint:  # nothing is spelt like it, so it may be meant as it stands
        message += f"; what the file leaves out is added with a plus: +{key}=…"
    return message


def nearest_in(node: Any, path: Sequence[str]) -> str:
    """Say where in a nested mapping a path leaves it, and what is nearest there.

    Args:
        node: plain containers.
        path: keys, from the outermost inwards.
    """
    for i, part in enumerate(path):
        if not isinstance(node, dict):
            return f"{'.'.join(path[:i])} is a single value and has no '{part}'"
        if part not in node:
            return f"there is no '{part}'; {suggest(part, [k for k in node if k != '_target_'])}"
        node = node[part]
    return "it cannot be set"


def _has_path(node: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _load_option(file: Path) -> dict[str, Any]:
    """Read an option with what its ``defaults`` put into it; empty if it is malformed."""
    content = _read_yaml(file)
    merged: dict[str, Any] = {}
    for entry in content.pop("defaults", None) or []:
        if isinstance(entry, str) and entry != "_self_" and "@" not in entry:
            merged |= _load_option(file.with_name(f"{entry}.yaml"))
        elif isinstance(entry, dict):
            for key, option in entry.items():
                if place := re.fullmatch(r"/(\w+)@(\w+)", str(key)):
                    merged[place[2]] = _load_option(file.parents[1] / place[1] / f"{option}.yaml")
    return _merge(merged, content)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge nested mappings into new ones; a value of ``above`` wins."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict):
            inner = merged.get(key)
            value = _merge(inner if isinstance(inner, dict) else {}, value)
        merged[key] = value
    return merged


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def read_default_groups(where: Where) -> set[str]:
    """Read from which groups the primary config chooses an option."""
    entries = _read_yaml(where[0] / f"{PRIMARY}.yaml").get("defaults") or []
    keys = [str(key) for entry in entries if isinstance(entry, dict) for key in entry]
    return {key.removeprefix("override ").lstrip("/") for key in keys}
