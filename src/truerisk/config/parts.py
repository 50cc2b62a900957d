"""What there is to choose from: the options of every config group, read from the YAML as text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

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
        ConfigError: it is not there; the message names one spelt like it.
    """
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
