"""What there is to choose from: the options of every config group, read from the YAML as text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from truerisk.core.errors import ConfigError, suggest

PRIMARY = "train"
"""The config that every other one is composed into."""
SINGLE = ("data", "model", "loss", "initializer", "optimizer", "scheduler", "trainer")
"""Groups of which one option is chosen, which has a ``_target_``."""


@cache
def conf_dir() -> Path:
    """Find the folder of the package's own options: in an installed wheel, or the checkout's."""
    here = Path(__file__).resolve().parents[1]
    # a wheel has it beside the code, a checkout above src/
    return next((d for d in (here / "conf", here.parents[1] / "conf") if d.is_dir()), here / "conf")


def existing_folder(folder: str | Path, what: str) -> Path:
    """Return the path of a folder that is there.

    Args:
        folder: as the user wrote it.
        what: how a message begins: what the folder is for.

    Raises:
        ConfigError: it is empty, or not there; the message names one spelt like it.
    """
    if not str(folder).strip():
        raise ConfigError(f"{what}: the folder's name is empty")
    path = Path(folder).expanduser()
    if path.is_dir():
        return path
    parent = path.absolute().parent
    hint = "nor the one above it"
    if parent.is_dir():
        hint = suggest(path.name, [inner.name for inner in parent.glob("*/")])
    raise ConfigError(f"{what}: there is no folder {folder}; {hint}")


def option_folders(config_dir: str | Path | None = None) -> tuple[Path, ...]:
    """Return the folders that hold options: the package's own, then the user's.

    Raises:
        ConfigError: ``config_dir`` is no folder.
    """
    if config_dir is None:
        return (conf_dir(),)
    return conf_dir(), existing_folder(config_dir, "--config-dir").resolve()


def list_groups(where: Sequence[Path]) -> list[str]:
    """List the config groups that have options, nested ones as ``outer/inner``."""
    folders = {file.parent.relative_to(top) for top in where for file in top.glob("*/**/*.yaml")}
    names = {folder.as_posix() for folder in folders if list_options(folder.as_posix(), where)}
    return sorted(names, key=lambda name: (name.startswith("hydra"), name))


def list_options(group: str, where: Sequence[Path]) -> dict[str, Path]:
    """List the options of a group, by name, with their files.

    Args:
        group: such as ``optimizer`` or ``hydra/launcher``.
        where: the folders that hold options; the first that has one wins, as in Hydra.
    """
    files = [file for top in reversed(where) for file in sorted((top / group).glob("*.yaml"))]
    visible = {file.stem: file for file in files if not file.name.startswith("_")}
    return dict(sorted(visible.items()))


def read_summary(file: Path) -> str:
    """Read the first comment of a YAML file that is no directive such as ``# @package``."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            break
        if text.lstrip("# ") and not text.lstrip("# ").startswith("@"):
            return text.lstrip("# ")
    return ""


def display_path(file: Path) -> str:
    """Write a config file's name as messages have it: ``conf/optimizer/sgd.yaml``."""
    if file.is_relative_to(conf_dir()):
        return (Path("conf") / file.relative_to(conf_dir())).as_posix()
    return str(file)


def find_fault(file: Path, kind: str, where: Sequence[Path], reserved: Collection[str]) -> str:
    """Find what a YAML file of the user's lacks that an option of its group has.

    Args:
        file: of the option.
        kind: ``single`` for a group of which one option is chosen, ``list`` where any number is,
            ``experiment`` for one that chooses options of other groups.
        where: the folders that hold options.
        reserved: the groups of which an option is chosen anyway.

    Returns:
        A line with the file and what to write; empty where nothing is wrong with it.
    """
    import yaml  # here, as a listing has no need of it

    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:  # told with its line when Hydra reads it
        return ""
    if content is not None and not isinstance(content, dict):
        return (
            f"{file} holds a {type(content).__name__}: an option is a mapping, of lines KEY: VALUE"
        )
    if kind == "experiment":
        return _find_fault_of_experiment(file, text, content or {}, reserved)
    try:
        merged = {**_read_defaults(content or {}, file, where), **(content or {})}
    except (FileNotFoundError, yaml.YAMLError):  # told when Hydra reads it, too
        return ""
    merged.pop("defaults", None)
    if kind == "single" and "_target_" not in merged:
        return (
            f"{file} has no line `_target_: PACKAGE.MODULE.CLASS`, or `defaults: [OPTION]` of an "
            "option whose line it takes over"
        )
    if kind == "list" and "_target_" in merged:
        return (
            f"{file} has `_target_` at its top: options of this group stand under a name of their "
            f"own, so write `{file.stem}:` above, and indent the rest"
        )
    if kind == "list" and not merged:
        return (
            f"{file} is empty: write `{file.stem}:`, and `  _target_: PACKAGE.MODULE.CLASS` below"
        )
    for name, node in merged.items() if kind == "list" else ():
        if not isinstance(node, dict) or "_target_" not in node:
            return f"{file}: below `{name}:` there is no line `  _target_: PACKAGE.MODULE.CLASS`"
    return ""


def _find_fault_of_experiment(
    file: Path, text: str, content: dict[str, Any], reserved: Collection[str]
) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Hydra reads the package from the comments before anything else
    packages = [line.replace(" ", "").startswith("#@package_global_") for line in lines]
    if any(packages[1:]) and not packages[0]:
        return f"{file}: '# @package …' must be the first line"
    if not any(packages):
        return f"{file}: an experiment begins with the line `# @package _global_`"
    for entry in content.get("defaults") or []:
        for key, option in entry.items() if isinstance(entry, dict) else ():
            words = str(key).split()
            group = words[-1].lstrip("/").partition("@")[0]
            if group in reserved and not (words[0] == "override" and words[-1].startswith("/")):
                return (
                    f"{file}: `- {key}: {option}` is to be `- override /{group}: {option}`, as "
                    "every run has an option of it already"
                )
    return ""


def _read_defaults(content: dict[str, Any], file: Path, where: Sequence[Path]) -> dict[str, Any]:
    """Read the keys of the options of its own group that a file takes over."""
    import yaml

    keys: dict[str, Any] = {}
    for entry in content.get("defaults") or []:
        if not isinstance(entry, str) or entry == "_self_":
            continue
        group, folders = file.parent.name, [file.parent, *(top / file.parent.name for top in where)]
        if entry.startswith("/"):
            group, _, entry = entry[1:].rpartition("/")
            folders = [top / group for top in where]
        found = next((f for folder in folders if (f := folder / f"{entry}.yaml").is_file()), None)
        if found is None:
            raise FileNotFoundError(entry)
        if found != file:
            inner = yaml.safe_load(found.read_text(encoding="utf-8")) or {}
            keys |= {**_read_defaults(inner, found, where), **inner}
    return keys


def show_option(group: str, name: str, config_dir: str | None = None) -> str:
    """Return what ``truerisk parts GROUP OPTION`` prints: its YAML, and what that takes over.

    Args:
        group: such as ``data``.
        name: of one of its options.
        config_dir: a folder with options of the user's own.

    Raises:
        ConfigError: there is no such group or option.
    """
    import yaml

    where = option_folders(config_dir)
    options = list_options(group, where)
    if not options:
        raise ConfigError(f"there is no group '{group}'; {suggest(group, list_groups(where))}")
    if name not in options:
        raise ConfigError(f"{group} has no option '{name}'; {suggest(name, options)}")
    files, waiting = [], [options[name]]
    while waiting:
        file = waiting.pop(0)
        files.append(file)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        entries = (content or {}).get("defaults") or [] if isinstance(content, dict) else []
        inner = [file.with_name(f"{e}.yaml") for e in entries if isinstance(e, str)]
        # a user's option may take over one of the package's
        inner += [where[0] / group / file.name for file in inner if not file.is_file()]
        waiting += [f for f in inner if f.is_file() and f not in files]
    texts = [f"# {display_path(file)}\n{file.read_text(encoding='utf-8')}" for file in files]
    return "\n".join(texts).rstrip()


def _format_option(name: str, text: str, width: int, column: int) -> str:
    """Write one option: its name, then what it is, wrapped under itself.

    Args:
        name: of the option.
        text: what it is.
        width: of the terminal, in characters.
        column: how wide the names are.
    """
    if width < column + 30:
        # too narrow for two columns: the text goes below the name
        body = textwrap.wrap(text, max(width - 6, 16), break_long_words=False)
        return "\n      ".join([f"  {name}", *body])
    body = textwrap.wrap(text, width - column - 4, break_long_words=False) or [""]
    return f"  {name:<{column}}  " + ("\n" + " " * (column + 4)).join(body)


def _format_group(group: str, where: Sequence[Path], width: int) -> str:
    files = list_options(group, where)
    column = max(map(len, files))
    lines = [group]
    for name, file in files.items():
        text = read_summary(file)
        if not file.is_relative_to(where[0]):
            text += " (yours)"
        lines.append(_format_option(name, text, width, column))
    return "\n".join(lines)


def format_listing(
    group: str | None = None, config_dir: str | None = None, width: int | None = None
) -> str:
    """Write what ``truerisk parts [GROUP]`` prints.

    Args:
        group: one of them, which stands for those nested in it, too; None for all.
        config_dir: a folder with options of the user's own.
        width: of the lines, in characters; the terminal's by default.

    Raises:
        ConfigError: there is no such group.
    """
    where = option_folders(config_dir)
    names = list_groups(where)
    chosen = [n for n in names if group is None or n == group or n.startswith(f"{group}/")]
    if group is not None and not chosen:
        raise ConfigError(f"there is no group '{group}'; {suggest(group, names)}")
    columns = width or shutil.get_terminal_size((100, 24)).columns
    return "\n\n".join(_format_group(name, where, columns) for name in chosen)
