"""Files that a config names."""

from __future__ import annotations

from pathlib import Path

from truerisk.core.errors import ConfigError, suggest


def existing(path: str | Path | None, key: str, what: str) -> Path:
    """The path, if there is something at it.

    Raises:
        ConfigError: no path is given, or nothing is there; the nearest name is offered.
    """
    if path is None:
        raise ConfigError(f"{key} is not set: give the path of {what}, as in {key}=PATH")
    found = Path(path).expanduser()
    if found.exists():
        return found
    folder = found.parent
    if not folder.is_dir():
        raise ConfigError(f"{key}: there is no folder {folder.absolute()}")
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    hint = suggest(found.name, names[:200])
    raise ConfigError(f"{key}: there is no file {found.name} in {folder.absolute()}; {hint}")


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
